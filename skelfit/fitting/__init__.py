"""The fit: SMPL parameters in, SKEL parameters out, for large batches of independent people."""
