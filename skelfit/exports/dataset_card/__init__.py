"""The dataset card: what a folder of shards holds, written from the shards alone, for people who may want to use it."""
