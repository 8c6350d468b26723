"""The fit: SMPL parameters in, SKEL parameters out, for large batches of unrelated people."""
