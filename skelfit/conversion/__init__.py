"""Label files to shards: plan, tasks of one shard each, and what a run says of itself."""
