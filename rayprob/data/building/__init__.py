"""Builds a dataset from a recipe: plan, check the images, write the tars, commit."""
