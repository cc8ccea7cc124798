"""The contract's services over the runner's core: check, call, convert."""
