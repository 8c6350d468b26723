"""SMPL labels of people in images: one reader per source, one typed batch, one store that can be sliced."""
