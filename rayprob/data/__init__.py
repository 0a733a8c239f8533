"""Datasets on disk: from annotations to WebDataset shards and a manifest."""
