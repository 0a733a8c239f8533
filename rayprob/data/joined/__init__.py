"""Several built datasets as one, for training and evaluation."""
