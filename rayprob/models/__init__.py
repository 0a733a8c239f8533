"""Backbone, pooling, head and loss. Knows nothing of data on disk or of Ray."""
