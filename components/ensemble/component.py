"""An ensemble of teachers as a model of its own, evaluated and servable like any other."""

import json
from collections.abc import Sequence

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.ensemble.executor import Executor
from stillhouse.components.numbered_inputs import numbered, with_numbered_inputs


class EnsembleSpec(types.ComponentSpec):
    """Inputs teacher_1 .. teacher_N are added for the N at hand."""

    PARAMETERS = {
        "label": ExecutionParameter(type=str),
        "head": ExecutionParameter(type=str),
        "ensemble": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {"transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph)}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class Ensemble(base_component.BaseComponent):
    """Writes one SavedModel whose distribution is the combined one of the teachers."""

    SPEC_CLASS = EnsembleSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        teachers: Sequence[types.BaseChannel],
        transform_graph: types.BaseChannel,
        label: str,
        code: str,
        head: str,
        ensemble: dict,
    ):
        """Builds the node.

        Args:
          teachers: Model channels.
          transform_graph: the Transform's output.
          label: name of the label.
          code: fingerprint of the code, for the cache.
          head: classification, multi_label or regression.
          ensemble: the teachers' `weights` and their `combination`.
        """
        spec_class = with_numbered_inputs(self.SPEC_CLASS, teacher=(len(teachers), standard_artifacts.Model))
        super().__init__(
            spec=spec_class(
                label=label,
                head=head,
                ensemble=json.dumps(ensemble),
                code=code,
                transform_graph=transform_graph,
                model=types.Channel(type=standard_artifacts.Model),
                **numbered("teacher", teachers),
            )
        )
