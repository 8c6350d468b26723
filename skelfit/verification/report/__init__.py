"""The report of a verification: data, tables, page, terminal lines."""
