"""The stock ExampleValidator with an executor that fails on anomalies."""

from tfx.components import ExampleValidator as StockExampleValidator
from tfx.dsl.components.base import executor_spec

from stillhouse.components.example_validator.executor import Executor


class ExampleValidator(StockExampleValidator):
    """Stops the run when the data does not fit its schema, naming every feature and reason."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
