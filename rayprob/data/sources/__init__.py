"""Sources of labels: one module per annotation format."""
