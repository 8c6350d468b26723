"""`skelfit predict`: people in photos, by a trained network. Knows that network, and nothing of the fit."""
