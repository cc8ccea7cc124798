"""Filling a cache without a server: `slipway-registry preload`, for image builds."""
