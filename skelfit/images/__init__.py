"""Images for the shards, from a folder or from tars: their bytes, or crops of the people, read ahead."""
