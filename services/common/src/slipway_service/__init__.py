"""What both Slipway services are built on."""
