"""A typed client for Slipway's registry and runner."""
