"""Distributions over label sets, questions about them, and how honest they are. Knows nothing of images."""
