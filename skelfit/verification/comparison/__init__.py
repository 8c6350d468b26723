"""`skelfit compare`: finished shards beside a label file that holds SKEL's parameters, person by person."""
