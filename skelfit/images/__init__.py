"""Images for the shards, from a folder or from tars: their own bytes, or crops of the people, read ahead."""
