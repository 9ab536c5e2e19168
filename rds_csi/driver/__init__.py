"""The composition root: builds every room, runs them, ends them in order."""
