"""A check of what will be served. TFX's InfraValidator needs a container engine; this needs a process."""

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.serving_check.executor import Executor, ServingCheckParameters


class ServingCheck(base_component.BaseComponent):
    """Blesses a model that gives, served in a fresh process, the metrics that the Evaluator saw."""

    SPEC_CLASS = declare(
        "ServingCheckSpec",
        ServingCheckParameters,
        inputs={
            "model": standard_artifacts.Model,
            "examples": standard_artifacts.Examples,
            "evaluation": standard_artifacts.ModelEvaluation,
        },
        outputs={"blessing": standard_artifacts.InfraBlessing},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model: BaseChannel, examples: BaseChannel, evaluation: BaseChannel, label: str):
        """Builds the node.

        Args:
          model: what will be served.
          examples: the raw ones, with the split eval.
          evaluation: ModelEvaluation of the model.
          label: name of the label column.
        """
        parameters = ServingCheckParameters(label=label)
        super().__init__(spec=fill(type(self), parameters, model=model, examples=examples, evaluation=evaluation))
