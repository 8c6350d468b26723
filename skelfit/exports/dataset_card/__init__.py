"""The dataset card: a page that describes finished shards, made from the shards alone."""
