"""Calibration of a run: calibrated marginals, thresholds and guarantees, fitted on holdout and stored in its bundle."""
