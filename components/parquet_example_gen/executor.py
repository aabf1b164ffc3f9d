"""Converts Parquet rows to tf.Examples.

TFX's executor for this takes every 0, 0.0 and False for a missing value (dict_to_example in
tfx/components/example_gen/utils.py, `if not pyval`), including a class id 0. This one does not.
"""

import os
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion import safe_parquet  # noqa: F401  (Beam's reader would run what a file holds)

MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1


def _feature(column: str, value: Any) -> tf.train.Feature:
    values = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        return tf.train.Feature()
    if all(isinstance(v, (bool, int)) for v in values):
        for number in values:
            if not MIN_INT64 <= number <= MAX_INT64:
                raise UserError(f"column {column!r}: found {number}; expected signed 64-bit integers; write strings")
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))
    if all(isinstance(v, (bool, int, float)) for v in values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    if all(isinstance(v, (str, bytes)) for v in values):
        encoded = [v.encode() if isinstance(v, str) else v for v in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
    kinds = ", ".join(sorted({type(v).__name__ for v in values}))
    raise UserError(f"column {column!r}: found values of type {kinds}; expected numbers, strings or lists of them")


def row_to_example(row: dict[str, Any]) -> tf.train.Example:
    """Returns the tf.Example of a row {column: value}: None is a missing value, zero and False are values.

    Raises:
      UserError: a value is neither a number nor a string nor a list of them.
    """
    features = {column: _feature(column, value) for column, value in row.items()}
    return tf.train.Example(features=tf.train.Features(feature=features))


@beam.ptransform_fn
def _ParquetToExample(pipeline: beam.Pipeline, exec_properties: dict[str, Any], split_pattern: str):
    pattern = os.path.join(exec_properties["input_base"], split_pattern)
    return pipeline | "ReadFromParquet" >> beam.io.ReadFromParquet(pattern) | "ToExample" >> beam.Map(row_to_example)


class Executor(BaseExampleGenExecutor):
    """Executor of ParquetExampleGen."""

    def GetInputSourceToExamplePTransform(self) -> Any:
        """Returns a function that makes the PTransform from Parquet files to tf.Examples."""
        return _ParquetToExample
