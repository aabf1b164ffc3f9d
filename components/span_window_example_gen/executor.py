"""Reads each span of the window by the executor of its format."""

from typing import Any

import apache_beam as beam
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.csv_example_gen import executor as csv
from tfx.components.example_gen.import_example_gen import executor as tfrecord

from stillhouse.components.parquet_example_gen import executor as parquet
from stillhouse.components.span_window_example_gen.window import SEPARATOR


class SpanWindow(BaseExampleGenExecutor):
    """A format's executor, for patterns that are several."""

    def GetInputSourceToExamplePTransform(self) -> Any:
        """Returns a function that makes the PTransform from the files of all spans to tf.Examples."""
        # That of the format, the next in the method resolution order.
        read_one: Any = super().GetInputSourceToExamplePTransform()  # type: ignore[safe-super]

        @beam.ptransform_fn
        def read_all(pipeline: beam.Pipeline, exec_properties: dict[str, Any], split_pattern: str):
            spans = [
                pipeline | f"Span{number}" >> read_one(exec_properties, pattern)
                for number, pattern in enumerate(split_pattern.split(SEPARATOR))
            ]
            return spans | beam.Flatten()

        return read_all


class CsvExecutor(SpanWindow, csv.Executor):
    """Executor for CSV; the columns of a span may stand in an order of their own."""


class TFRecordExecutor(SpanWindow, tfrecord.Executor):
    """Executor for TFRecords of tf.Examples."""


class ParquetExecutor(SpanWindow, parquet.Executor):
    """Executor for Parquet."""
