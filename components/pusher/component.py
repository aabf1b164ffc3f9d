"""The stock Pusher, but atomic, verified and idempotent; it also keeps teachers."""

from collections.abc import Sequence
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.utils import json_utils

from stillhouse.components.base import number_inputs, with_own_code
from stillhouse.components.pusher.driver import Driver
from stillhouse.components.pusher.executor import Executor


class Pusher(base_component.BaseComponent):
    """Pushes into push_destination/VERSION by a rename, and keeps the teachers behind that version."""

    SPEC_CLASS = standard_component_specs.PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        push_destination: pusher_pb2.PushDestination,
        custom_config: dict[str, Any] | None = None,
        teachers: Sequence[types.BaseChannel] = (),
        evaluation: types.BaseChannel | None = None,
    ):
        """Builds the node; arguments as the stock Pusher's, and two more.

        Args:
          teachers: Model channels that are kept.
          evaluation: ModelEvaluation of the model; its metrics are recorded with the version.
        """
        inputs = {"teacher": teachers} | ({"evaluation": [evaluation]} if evaluation else {})
        spec_class, numbered = number_inputs(self.SPEC_CLASS, inputs)
        spec = spec_class(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=push_destination,
            custom_config=json_utils.dumps(custom_config),
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            **numbered,
        )
        super().__init__(spec=spec)
        with_own_code(self)
