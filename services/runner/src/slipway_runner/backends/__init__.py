"""Inference servers: what each is, as a value."""
