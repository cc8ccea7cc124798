"""What a model can run on: memory and devices of this host."""
