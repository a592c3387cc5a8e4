"""What tests share: tiny checkpoints, a model that can be checked by hand, slow reference loops."""
