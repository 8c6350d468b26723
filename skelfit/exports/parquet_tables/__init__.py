"""People and rows as tables with named columns, in Parquet files."""
