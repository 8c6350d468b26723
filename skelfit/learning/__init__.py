"""Training on shards: data, networks, training, evaluation, inference."""
