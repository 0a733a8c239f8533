"""Calibration of a run: honest marginals, thresholds and guarantees, fitted on holdout and stored in its bundle."""
