"""A built dataset, read back: samples, shards and labels as columns."""
