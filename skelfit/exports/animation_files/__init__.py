"""Skinned people in motion, as glTF and BVH describe them."""
