"""Where a fit starts, and where it restarts."""
