"""Whether shards are whole."""
