"""The checks of a node."""
