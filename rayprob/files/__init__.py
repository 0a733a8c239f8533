"""Files and folders, local or remote: paths and URIs, atomic writes, validated JSON and tables."""
