"""rayprob: distributed training of multi-label image classifiers whose probabilities can be trusted."""

__version__ = "0.1.0"
