"""Published evaluations: each protocol as data, the figures it asks for, and the report."""
