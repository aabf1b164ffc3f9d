"""Chooses among unlabelled examples those to learn from, and makes targets of what the teacher says about them."""

import json
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.pseudo_labels.executor import Executor


class PseudoLabelsSpec(types.ComponentSpec):
    """Soft targets and the examples they belong to in; fewer (or doubled) transfer examples and their targets out."""

    PARAMETERS = {
        "label": ExecutionParameter(type=str),
        "rule": ExecutionParameter(type=str),
        "ensemble": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transfer_examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "soft_targets": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {
        "pseudo_labelled": ChannelParameter(type=standard_artifacts.Examples),
        "targets": ChannelParameter(type=standard_artifacts.Examples),
    }


class PseudoLabels(base_component.BaseComponent):
    """Filters and balances unlabelled examples by the teacher's confidence, and writes targets for all examples."""

    SPEC_CLASS = PseudoLabelsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transfer_examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        soft_targets: types.BaseChannel,
        label: str,
        rule: dict[str, Any],
        ensemble: dict[str, Any],
        code: str,
    ):
        """Builds the node.

        Args:
          examples: transformed examples with the split train.
          transfer_examples: transformed examples without labels, with the split transfer.
          transform_graph: the Transform's output.
          soft_targets: of both.
          label: name of the label feature.
          rule: kind, min_confidence and balance.
          ensemble: the teachers' `weights` and their `combination`; several are one teacher from here on.
          code: fingerprint of the code, for the cache.
        """
        super().__init__(
            spec=PseudoLabelsSpec(
                label=label,
                rule=json.dumps(rule),
                ensemble=json.dumps(ensemble),
                code=code,
                examples=examples,
                transfer_examples=transfer_examples,
                transform_graph=transform_graph,
                soft_targets=soft_targets,
                pseudo_labelled=types.Channel(type=standard_artifacts.Examples),
                targets=types.Channel(type=standard_artifacts.Examples),
            )
        )
