"""The runner on real processes."""
