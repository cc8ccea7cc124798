"""The registry: finds models on the Hub and keeps them in a shared cache."""
