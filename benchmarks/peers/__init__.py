"""The same work through other engines, each in an environment of its own, alternating with ours in one run."""
