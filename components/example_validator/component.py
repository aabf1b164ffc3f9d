"""The stock ExampleValidator with an executor that fails on anomalies."""

from tfx.components import ExampleValidator as StockExampleValidator
from tfx.dsl.components.base import executor_spec

from stillhouse.components.base import with_own_code
from stillhouse.components.example_validator.executor import Executor


class ExampleValidator(StockExampleValidator):
    """Stops the run when the data does not fit its schema, naming every feature and reason."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, **arguments):
        """Builds the node; arguments as the stock ExampleValidator's."""
        super().__init__(**arguments)
        with_own_code(self)
