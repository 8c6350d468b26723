"""Finished shards to batches of tensors, for any trainer. Knows shards and bodies' facts, no network."""
