"""Sweeps: many trials of one run file, searched by Optuna, run by Ray Tune, kept in one folder."""
