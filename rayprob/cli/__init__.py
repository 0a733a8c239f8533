"""The command line: one file per group of verbs, and `show_*.py` for what they print."""

from rayprob.cli.app import main

__all__ = ["main"]
