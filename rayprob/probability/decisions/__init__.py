"""From probabilities to label sets: cuts, thresholds and conformal guarantees."""
