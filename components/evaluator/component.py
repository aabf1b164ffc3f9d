"""The stock Evaluator with an executor that copes with a baseline that does not exist yet."""

from tfx.components import Evaluator as StockEvaluator
from tfx.dsl.components.base import executor_spec

from stillhouse.components.base import with_own_code
from stillhouse.components.evaluator.executor import Executor


class Evaluator(StockEvaluator):
    """Compares a candidate with a baseline; blesses a candidate that has nothing to be compared with."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, **arguments):
        """Builds the node; arguments as the stock Evaluator's."""
        super().__init__(**arguments)
        with_own_code(self)
