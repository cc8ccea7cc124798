"""`slipway cache …`: see, check, hold, copy and remove what is in the cache."""
