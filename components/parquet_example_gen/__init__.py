"""ExampleGen for Parquet files."""

from stillhouse.components.parquet_example_gen.component import ParquetExampleGen

__all__ = ["ParquetExampleGen"]
