"""What is measured of people and of sequences."""
