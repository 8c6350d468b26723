"""Checkpoints of networks that others published: which names they have, and what they are here."""
