"""Configuration files: YAML parsed strictly into typed specs, with errors that name the location."""
