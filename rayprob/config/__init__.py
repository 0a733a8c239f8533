"""The files that people write: YAML read strictly into typed specs, with errors that name the place."""
