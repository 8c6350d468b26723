"""`skelfit compare`: finished shards against a label file with SKEL's parameters, person by person."""
