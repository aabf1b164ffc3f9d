"""TFX's file-based ExampleGen with an executor for Parquet that keeps zeros."""

from tfx.components import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec

from stillhouse.components.parquet_example_gen.executor import Executor


class ParquetExampleGen(FileBasedExampleGen):
    """Reads Parquet files; arguments as FileBasedExampleGen's."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
