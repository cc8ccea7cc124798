"""Makers of tiny models: deterministic, in seconds, with numpy and gguf alone.

They are real to every backend that loads them. What they say is built into the weights: each token's embedding
points at the token that follows it, so an answer is known word by word and a wrongly loaded shard shows.
"""
