"""`skelfit verify`: are finished shards whole, accurate and anatomical, and whom should one leave out."""
