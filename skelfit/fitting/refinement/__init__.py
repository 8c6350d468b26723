"""SKEL parameters refined against the 2D keypoints of their pictures."""
