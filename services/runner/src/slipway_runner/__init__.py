"""The runner: launches inference backends on one host and owns their lifecycle."""
