"""Files that hold labels, and files that do not."""
