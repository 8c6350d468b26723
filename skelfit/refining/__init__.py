"""`skelfit refine`: finished shards, refined against the keypoints of their pictures."""
