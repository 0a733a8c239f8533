"""Calibrators: maps from logits to calibrated logits, fitted on the holdout."""
