"""Where labels come from: one module for each format that people keep them in."""
