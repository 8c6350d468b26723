"""Measures of people and of sequences."""
