"""An ensemble of teachers as a model of its own, evaluated and servable like any other."""

from collections.abc import Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.ensemble.executor import EnsembleParameters, Executor
from stillhouse.modules.settings import WeightedEnsemble


class Ensemble(base_component.BaseComponent):
    """Writes one SavedModel whose distribution is the combined one of the teachers."""

    SPEC_CLASS = declare(
        "EnsembleSpec",
        EnsembleParameters,
        inputs={"transform_graph": standard_artifacts.TransformGraph},
        outputs={"model": standard_artifacts.Model},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        teachers: Sequence[BaseChannel],
        transform_graph: BaseChannel,
        label: str,
        head: str,
        ensemble: WeightedEnsemble,
    ):
        """Builds the node.

        Args:
          teachers: Model channels.
          transform_graph: the Transform's output.
          label: name of the label.
          head: classification, multi_label or regression.
          ensemble: the teachers' weights and their combination.
        """
        parameters = EnsembleParameters(label=label, head=head, ensemble=ensemble)
        super().__init__(spec=fill(type(self), parameters, transform_graph=transform_graph, teacher=teachers))
