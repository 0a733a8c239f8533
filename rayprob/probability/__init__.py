"""Distributions over label sets, queries about them, and their calibration. Independent of images."""
