"""Calibrated probabilities as plain tensor operations, for export: one module for each kind of calibrator."""
