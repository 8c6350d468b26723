"""From finished shards to batches of tensors, for any trainer. Knows shards and bodies, but no network."""
