"""skelfit: SMPL labels in, SKEL-fitted WebDataset shards out."""

__version__ = "0.1.0"
