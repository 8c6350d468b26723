"""`skelfit predict`: what a trained network says of people in photos. Knows the trainer's network, nothing of the fit."""
