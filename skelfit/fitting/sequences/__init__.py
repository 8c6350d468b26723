"""Frames of one person, fitted as one problem."""
