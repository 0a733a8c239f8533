"""Making it honest: maps from logits to calibrated logits, fitted on holdout."""
