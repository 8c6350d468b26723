"""SMPL labels of people in images: one reader per layout, one typed batch, one store that can be sliced."""
