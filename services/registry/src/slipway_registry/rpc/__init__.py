"""The contract's services over the registry's core: check, call, convert."""
