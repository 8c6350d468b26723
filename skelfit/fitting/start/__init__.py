"""Where a fit starts, and where it starts again."""
