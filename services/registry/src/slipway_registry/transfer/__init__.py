"""Bytes from the Hub to the disk."""
