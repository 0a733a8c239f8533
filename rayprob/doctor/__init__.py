"""Checks before a long job: facts of every node, and what is wrong with them."""
