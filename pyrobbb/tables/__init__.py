"""Tables in files: csv, tsv and parquet, read, encoded and written."""
