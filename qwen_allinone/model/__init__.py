"""A checkpoint -> a tokenizer and a fast forward pass."""
