"""Checks that shards are whole."""
