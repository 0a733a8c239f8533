"""Calibration of a run: honest marginals, thresholds and guarantees, fitted on holdout and put into its bundle."""
