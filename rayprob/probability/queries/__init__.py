"""Queries: expressions over labels, and their exact answers."""
