"""Whether a device fits people as a CPU does, and how fast: one report, made by one command within ten minutes.

`skelfit bench --device cuda --report FILE` is for the day a GPU is at hand: it leaves nothing to ask for later. The
same report can be made of a CPU.
"""
