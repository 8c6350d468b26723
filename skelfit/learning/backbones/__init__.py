"""Backbones, one file each: ViTPose, and a small one for CPUs. They know no body and no training."""
