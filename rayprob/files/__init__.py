"""Files and folders, here or in a bucket: paths and URIs, whole writes, checked JSON and tables."""
