"""The usual way to serve a model, as a yardstick, and how many times faster the service is in the same run."""
