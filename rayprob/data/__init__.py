"""Data at rest: annotations in, WebDataset shards and a manifest out."""
