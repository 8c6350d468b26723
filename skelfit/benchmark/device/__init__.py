"""The report on a device: whether it fits people as a CPU does, and how fast. One command, within ten minutes.

`skelfit bench --device cuda --report FILE` measures all that is of interest about a GPU. It works for a CPU too.
"""
