"""One program for each engine: loads a model once, then answers measurements (see `protocol`)."""
