"""The life of models, without processes."""
