"""Readers of label files, one file a layout."""
