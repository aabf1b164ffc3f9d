"""The ExampleGen of a data format."""

import os

from tfx.components import CsvExampleGen, ImportExampleGen
from tfx.proto import example_gen_pb2

from components.parquet_example_gen import ParquetExampleGen
from pipelines.settings import Data


def example_gen(data: Data, path: str):
    """Returns the ExampleGen of the data's format and splits; `path` is the folder, {SPAN} and {VERSION} included."""
    if all(isinstance(value, str) for value in data.splits.values()):
        return _example_gen(data.format, path, patterns=data.splits).with_id("ExampleGen")
    return _example_gen(data.format, path, shares=data.splits).with_id("ExampleGen")


def transfer_example_gen(data: Data, path: str):
    """Returns the ExampleGen of the examples without labels in the folder `path`: one split, transfer."""
    return _example_gen(data.format, path, shares={"transfer": 1}).with_id("TransferExampleGen")


def base_and_prefix(path: str) -> tuple[str, str]:
    """Returns the folder before {SPAN}, and what comes before the file patterns of the splits."""
    if "{SPAN}" not in path:
        return path, ""
    base = os.path.dirname(path[: path.index("{SPAN}")])
    return base, path[len(base) + 1 :] + "/"


def _example_gen(format: str, path: str, patterns: dict[str, str] | None = None, shares: dict[str, int] | None = None):
    base, prefix = base_and_prefix(path)
    splits = [
        example_gen_pb2.Input.Split(name=name, pattern=prefix + pattern)
        for name, pattern in (patterns or {"all": "*"}).items()
    ]
    output_config = None
    if shares:
        buckets = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=share) for name, share in shares.items()]
        output_config = example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=buckets))
    kind = {"csv": CsvExampleGen, "tfrecord": ImportExampleGen, "parquet": ParquetExampleGen}[format]
    return kind(input_base=base, input_config=example_gen_pb2.Input(splits=splits), output_config=output_config)
