"""The stock Pusher with an executor whose versions appear at once, or not at all, and that keeps teachers."""

from collections.abc import Sequence
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.utils import json_utils

from stillhouse.components.base import number_inputs, with_own_code
from stillhouse.components.pusher.executor import Executor


class Pusher(base_component.BaseComponent):
    """Pushes into push_destination/VERSION by a rename, and keeps the teachers behind that version."""

    SPEC_CLASS = standard_component_specs.PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        push_destination: pusher_pb2.PushDestination,
        custom_config: dict[str, Any] | None = None,
        teachers: Sequence[types.BaseChannel] = (),
    ):
        """Builds the node; arguments as the stock Pusher's, and `teachers`: Model channels that are kept."""
        spec_class, numbered_teachers = number_inputs(self.SPEC_CLASS, {"teacher": teachers})
        spec = spec_class(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=push_destination,
            custom_config=json_utils.dumps(custom_config),
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            **numbered_teachers,
        )
        super().__init__(spec=spec)
        with_own_code(self)
