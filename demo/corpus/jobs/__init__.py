"""What the tasks beyond sentiment and chat are taught: word lists (YAML) and a generator for each task."""
