"""Image files: the supported kinds, their headers, and decoding."""
