"""`skelfit predict`: people in photos, by a trained network. Knows nothing of the fit."""
