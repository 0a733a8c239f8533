"""What a model predicts for an image: exact joint distributions over label sets."""
