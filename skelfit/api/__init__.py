"""What `import skelfit` gives: the functions that people call from Python. `skelfit/__init__.py` names them all."""
