"""TFX's file-based ExampleGen with an executor for Parquet that keeps zeros."""

from tfx.components import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec

from stillhouse.components.base import with_own_code
from stillhouse.components.parquet_example_gen.executor import Executor


class ParquetExampleGen(FileBasedExampleGen):
    """Reads Parquet files; arguments as FileBasedExampleGen's."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, **arguments):
        """Builds the node; arguments as FileBasedExampleGen's."""
        super().__init__(**arguments)
        with_own_code(self)
