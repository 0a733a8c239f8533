"""What a model says of an image: exact joint distributions over label sets."""
