"""Exact multi-label metrics, on one process or gathered from many. Independent of images."""
