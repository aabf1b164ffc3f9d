"""Component specs for a number of inputs that depends on the pipeline.

TFX's compiler for Kubeflow rejects an input of several channels, so N models need N named inputs:
model_1, model_2, ... Each N gets a spec class of its own.
"""

from collections.abc import Sequence

from tfx import types
from tfx.types.component_spec import ChannelParameter, ComponentSpec


def with_numbered_inputs(base: type[ComponentSpec], **inputs: tuple[int, type[types.Artifact]]) -> type[ComponentSpec]:
    """Returns a subclass of the spec `base` with inputs prefix_1 .. prefix_count for each prefix=(count, type)."""
    numbered = {
        f"{prefix}_{i}": ChannelParameter(type=artifact_type)
        for prefix, (count, artifact_type) in inputs.items()
        for i in range(1, count + 1)
    }
    return type(base.__name__, (base,), {"INPUTS": {**base.INPUTS, **numbered}})


def numbered(prefix: str, channels: Sequence[types.BaseChannel]) -> dict[str, types.BaseChannel]:
    """Returns {prefix_1: channels[0], prefix_2: channels[1], ...}."""
    return {f"{prefix}_{i}": channel for i, channel in enumerate(channels, start=1)}


def numbered_artifacts(input_dict: dict[str, list[types.Artifact]], prefix: str) -> list[types.Artifact]:
    """Returns the artifacts of the inputs prefix_1, prefix_2, ... in order, as an executor receives them."""
    artifacts = []
    while f"{prefix}_{len(artifacts) + 1}" in input_dict:
        artifacts.append(input_dict[f"{prefix}_{len(artifacts) + 1}"][0])
    return artifacts
