"""Asks every model of the comparison about the eval examples, once; gates, paired tests and report read the answers."""

from collections.abc import Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.predictions.executor import Executor, PredictionsParameters


class Predictions(base_component.BaseComponent):
    """Writes one table: a row per eval example, with label, slice columns and each model's prediction."""

    # Inputs model_1.. are added.
    SPEC_CLASS = declare(
        "PredictionsSpec",
        PredictionsParameters,
        inputs={"examples": standard_artifacts.Examples},
        outputs={"predictions": standard_artifacts.InferenceResult},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        models: Sequence[BaseChannel],
        names: Sequence[str],
        examples: BaseChannel,
        label: str,
        head: str,
        slice_columns: Sequence[str] = (),
        query: str | None = None,
    ):
        """Builds the node.

        Args:
          models: Model channels.
          names: of the models; the classes are in the order of "Student"'s.
          examples: raw ones, with the split eval.
          label: name of the label column.
          head: classification, multi_label or regression.
          slice_columns: raw columns that define slices.
          query: raw column with the query of each candidate; None: no ranking.
        """
        parameters = PredictionsParameters(
            names=list(names), label=label, head=head, slice_columns=sorted(set(slice_columns)), query=query or ""
        )
        super().__init__(spec=fill(type(self), parameters, model=list(models), examples=examples))
