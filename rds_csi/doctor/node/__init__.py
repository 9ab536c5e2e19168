"""The checks of a node: :mod:`.checks` is the list, the others are what it looks at."""
