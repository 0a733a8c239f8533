"""One training run: what it is, its loop, its state, and its Ray workers."""
