"""The Hugging Face cache: names, layout, and making files visible in it."""
