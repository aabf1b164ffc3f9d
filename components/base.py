"""What all components of ours share: parameters declared once, numbered inputs, their own code in the cache key.

A component declares its parameters as a subclass of `Parameters`; `declare` makes TFX's spec class from it, `fill` an
instance of that from values and channels, and `Parameters.read` gives the executor the values back:

  class SplitParameters(Parameters):
      share: float

  class Split(BaseComponent):
      SPEC_CLASS = declare("SplitSpec", SplitParameters, {"examples": Examples}, {"parts": Examples})
      EXECUTOR_SPEC = ExecutorClassSpec(Executor)

      def __init__(self, examples, share):
          super().__init__(spec=fill(type(self), SplitParameters(share=share), examples=examples))

A text or an integer is an execution property as it is, everything else is one as JSON. Kubeflow refuses an input that
is made of several channels, so an input of N channels becomes N inputs: model_1, model_2, ...
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from tfx import types
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.io import fileio
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import path_utils

from stillhouse.modules.code_fingerprint import code_fingerprint

CODE = "code"  # the execution property with the fingerprint of a component's code
TAKEN_FROM = "taken_from"  # the property of an artifact that was taken from an earlier run: the URI it was copied from
PLAIN = (str, int)  # types of parameters that are execution properties as they are


class Parameters(BaseModel):
    """The parameters of a component, by name; a subclass declares them as fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def properties(self) -> dict[str, str | int]:
        """Returns them as execution properties."""
        values = self.model_dump(mode="json")
        return {
            name: values[name] if field.annotation in PLAIN else json.dumps(values[name])
            for name, field in type(self).model_fields.items()
        }

    @classmethod
    def read(cls, exec_properties: Mapping[str, Any]):
        """Returns the parameters among an executor's execution properties, with their types."""
        values = {
            name: exec_properties[name] if field.annotation in PLAIN else json.loads(exec_properties[name])
            for name, field in cls.model_fields.items()
        }
        return cls.model_validate(values)


def declare(
    name: str,
    parameters: type[Parameters],
    inputs: Mapping[str, type[types.Artifact]],
    outputs: Mapping[str, type[types.Artifact]],
    optional_inputs: Mapping[str, type[types.Artifact]] | None = None,
    set_by_driver: Sequence[str] = (),
) -> type[types.ComponentSpec]:
    """Returns the spec class of a component.

    Args:
      name: of the class.
      parameters: the component's parameters; the fingerprint of its code is added.
      inputs: artifact types by name; numbered ones are added by `fill`.
      outputs: likewise.
      optional_inputs: inputs that may be missing.
      set_by_driver: names of text properties that the component's driver sets.
    """
    declared = {
        key: ExecutionParameter(type=int if field.annotation is int else str)
        for key, field in parameters.model_fields.items()
    }
    late = {key: ExecutionParameter(type=str, optional=True) for key in set_by_driver}
    channels = {key: ChannelParameter(type=kind) for key, kind in inputs.items()}
    channels |= {key: ChannelParameter(type=kind, optional=True) for key, kind in (optional_inputs or {}).items()}
    return type(
        name,
        (types.ComponentSpec,),
        {
            "PARAMETERS": {**declared, **late, CODE: ExecutionParameter(type=str)},
            "INPUTS": channels,
            "OUTPUTS": {key: ChannelParameter(type=kind) for key, kind in outputs.items()},
        },
    )


def fill(
    component: type[BaseComponent],
    parameters: Parameters,
    **inputs: types.BaseChannel | Sequence[types.BaseChannel] | None,
) -> types.ComponentSpec:
    """Returns the spec of a node.

    Args:
      component: its class, with the SPEC_CLASS that `declare` made.
      parameters: their values.
      **inputs: a channel for each input; None for an optional one that is missing; a sequence of channels for NAME_1,
        NAME_2, ...
    """
    spec_class = component.SPEC_CLASS
    outputs = {key: types.Channel(type=output.type) for key, output in spec_class.OUTPUTS.items()}
    numbered_class, channels = number_inputs(spec_class, inputs)
    code = {CODE: fingerprint_of(component)}
    return numbered_class(**parameters.properties(), **code, **channels, **outputs)


def number_inputs(
    spec_class: type[types.ComponentSpec],
    inputs: Mapping[str, types.BaseChannel | Sequence[types.BaseChannel] | None],
) -> tuple[type[types.ComponentSpec], dict[str, types.BaseChannel | None]]:
    """Returns a subclass of the spec with an input for each channel of a sequence, and the channels by their inputs."""
    channels: dict[str, types.BaseChannel | None] = {}
    added = {}
    for key, value in inputs.items():
        if value is None or isinstance(value, types.BaseChannel):
            channels[key] = value
            continue
        for number, channel in enumerate(value, start=1):
            channels[f"{key}_{number}"] = channel
            added[f"{key}_{number}"] = ChannelParameter(type=channel.type)
    numbered_class = type(spec_class.__name__, (spec_class,), {"INPUTS": {**spec_class.INPUTS, **added}})
    return numbered_class, channels


def numbered_artifacts(input_dict: Mapping[str, list[types.Artifact]], name: str) -> list[types.Artifact]:
    """Returns the artifacts of the inputs NAME_1, NAME_2, ... in order, as an executor receives them."""
    artifacts: list[types.Artifact] = []
    while f"{name}_{len(artifacts) + 1}" in input_dict:
        artifacts.append(input_dict[f"{name}_{len(artifacts) + 1}"][0])
    return artifacts


def existing_models(input_dict: Mapping[str, list[types.Artifact]], names: Sequence[str]) -> dict[str, str]:
    """Returns by name the SavedModels of the inputs model_1, model_2, ...; the pushed model does not exist at first."""
    artifacts = numbered_artifacts(input_dict, "model")
    paths = {name: path_utils.serving_model_path(artifact.uri) for name, artifact in zip(names, artifacts, strict=True)}
    return {name: path for name, path in paths.items() if fileio.exists(path)}


def fingerprint_of(component: type[BaseComponent]) -> str:
    """Returns the fingerprint of the component's module, which imports its executor and driver, and all behind it."""
    return code_fingerprint(component.__module__)


def with_own_code(component: BaseComponent) -> None:
    """Adds the fingerprint of its code to a node whose class derives from a stock component.

    The spec classes of stock components are fixed; execution properties that they do not declare reach cache key and
    executor all the same, and stock executors do not look at them.
    """
    component.spec.exec_properties[CODE] = fingerprint_of(type(component))
