"""`skelfit verify`: are finished shards whole, accurate and anatomical, and which people should be left out."""
