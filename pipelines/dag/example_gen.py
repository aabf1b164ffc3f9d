"""The ExampleGen of a data format."""

import os

from tfx.components import CsvExampleGen, ImportExampleGen
from tfx.proto import example_gen_pb2

from stillhouse.components.parquet_example_gen import ParquetExampleGen
from stillhouse.components.span_window_example_gen import SpanWindowExampleGen
from stillhouse.modules.settings import Data


def example_gen(data: Data, path: str):
    """Returns the ExampleGen of the data's format, splits and spans.

    Args:
      data: its settings.
      path: the folder, {SPAN} and {VERSION} included.
    """
    return _example_gen(data, path, data.spans).with_id("ExampleGen")


def newest_span_example_gen(data: Data, path: str):
    """Returns the ExampleGen of the newest span alone, arguments as above."""
    return _example_gen(data, path).with_id("NewestSpan")


def earlier_spans_example_gen(data: Data, path: str):
    """Returns the ExampleGen of the spans before the newest, arguments as above."""
    return _example_gen(data, path, max(1, data.spans - 1), skipped=1).with_id("EarlierSpans")


def transfer_example_gen(data: Data, path: str):
    """Returns the ExampleGen of the examples without labels in the folder `path`: one split, transfer."""
    return _example_gen(data.model_copy(update={"splits": {"transfer": 1}}), path).with_id("TransferExampleGen")


def base_and_prefix(path: str) -> tuple[str, str]:
    """Returns the folder before {SPAN}, and what comes before the file patterns of the splits."""
    if "{SPAN}" not in path:
        return path, ""
    base = os.path.dirname(path[: path.index("{SPAN}")])
    return base, path[len(base) + 1 :] + "/"


def _example_gen(data: Data, path: str, spans: int = 1, skipped: int = 0):
    base, prefix = base_and_prefix(path)
    by_pattern = all(isinstance(value, str) for value in data.splits.values())
    patterns = {name: str(pattern) for name, pattern in data.splits.items()} if by_pattern else {"all": "*"}
    inputs = example_gen_pb2.Input(
        splits=[example_gen_pb2.Input.Split(name=name, pattern=prefix + pattern) for name, pattern in patterns.items()]
    )
    outputs = None
    if not by_pattern:
        buckets = [
            example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=share) for name, share in data.splits.items()
        ]
        outputs = example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=buckets))
    if spans > 1 or skipped:
        return SpanWindowExampleGen(base, inputs, outputs, data.format, spans, skipped)
    kind = {"csv": CsvExampleGen, "tfrecord": ImportExampleGen, "parquet": ParquetExampleGen}[data.format]
    return kind(input_base=base, input_config=inputs, output_config=outputs)
