"""One training run: its loop, its state, and its workers."""
