"""Word lists (YAML) and the generator that composes labelled texts and replies from them."""
