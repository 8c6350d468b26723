"""The terms of the objective besides the skin; one file a term."""
