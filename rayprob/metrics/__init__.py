"""Exact multi-label metrics, on one process or gathered from many. Knows nothing of images."""
