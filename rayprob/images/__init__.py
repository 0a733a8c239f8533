"""Image files: which kinds are read, what their headers state, and how their bytes become pixels."""
