"""Tools of the developers, which are not installed: run them from the root of the repository."""
