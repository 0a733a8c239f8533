"""Backbone, pooling, head and loss. Independent of data on disk and of Ray."""
