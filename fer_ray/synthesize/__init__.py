"""Commands that make synthetic faces and write them as Parquet, ready for `--synthetic`; one module per method."""
