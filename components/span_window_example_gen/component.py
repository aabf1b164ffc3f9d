"""TFX's file-based ExampleGen reads one span; this one reads the newest spans together.

TFX's way, a Resolver over the Examples of earlier runs, is refused by open-source Kubeflow Pipelines.
"""

from typing import Literal

from tfx.components import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from stillhouse.components.base import with_own_code
from stillhouse.components.span_window_example_gen.driver import Driver
from stillhouse.components.span_window_example_gen.executor import CsvExecutor, ParquetExecutor, TFRecordExecutor
from stillhouse.components.span_window_example_gen.window import custom_config

EXECUTORS = {"csv": CsvExecutor, "tfrecord": TFRecordExecutor, "parquet": ParquetExecutor}


class SpanWindowExampleGen(FileBasedExampleGen):
    """Reads a rolling window of spans; the `span` of its output is the newest in it."""

    DRIVER_CLASS = Driver

    def __init__(
        self,
        input_base: str,
        input_config: example_gen_pb2.Input,
        output_config: example_gen_pb2.Output | None,
        format: Literal["csv", "tfrecord", "parquet"],
        spans: int,
        skipped: int = 0,
    ):
        """Builds the node; `spans` is the length of the window, which ends `skipped` spans before the newest.

        The others are as FileBasedExampleGen's. If there is only the newest span, it is read although it is skipped.
        """
        super().__init__(
            input_base=input_base,
            input_config=input_config,
            output_config=output_config,
            custom_config=custom_config(spans, skipped),
            custom_executor_spec=executor_spec.BeamExecutorSpec(EXECUTORS[format]),
        )
        with_own_code(self)
