"""Processes: found, stopped, written down."""
