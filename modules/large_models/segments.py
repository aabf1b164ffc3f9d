"""Cuts a network into segments, each a network of its own, with few tensors between them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError


@dataclass(frozen=True)
class Unit:
    """A call of a layer in the graph of a network."""

    layer: keras.layers.Layer
    inputs: list[Any]  # KerasTensors
    outputs: list[Any]

    @property
    def bytes(self) -> int:
        """Size of its outputs per example."""
        return sum(bytes_of(tensor) for tensor in self.outputs)


def shape_of(tensor: Any, batch: int) -> list[int]:
    """Returns the shape of a KerasTensor for `batch` examples; unknown dimensions are 1."""
    return [batch, *(size or 1 for size in tensor.shape[1:])]


def bytes_of(tensor: Any) -> int:
    """Returns the bytes of a KerasTensor per example; unknown dimensions count as 1."""
    return math.prod(shape_of(tensor, 1)) * tf.as_dtype(tensor.dtype).size


def bytes_of_variables(variables: Sequence[tf.Variable]) -> int:
    """Returns the bytes of variables."""
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)


def units_of(network: keras.Model) -> list[Unit]:
    """Returns the calls of layers in a functional or sequential network, without inputs, in an executable order.

    Raises:
      UserError: the network is neither; a subclassed model has no graph.
    """
    if not network.outputs:
        raise UserError(f"{network.name}: found a subclassed model; expected one of the functional API, to be cut")
    units, seen = [], set()
    # An explicit stack, since a deep network would be a deep recursion.
    stack = [(tensor.node, False) for tensor in reversed(tf.nest.flatten(network.outputs))]
    while stack:
        node, ready = stack.pop()
        if ready:
            units.append(Unit(node.layer, list(node.keras_inputs), tf.nest.flatten(node.outputs)))
        elif id(node) not in seen and not node.is_input:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(tensor.node, False) for tensor in reversed(node.keras_inputs)]
    return units


def crossing(units: Sequence[Unit], network: keras.Model) -> list[list[Any]]:
    """Returns the tensors across each possible cut (after the first unit, after the second, ...).

    The network's inputs are not among them: they exist anyway.
    """
    last_use: dict[int, int] = {}
    for index, unit in enumerate(units):
        last_use |= {id(tensor): index for tensor in unit.inputs}
    last_use |= {id(tensor): len(units) for tensor in tf.nest.flatten(network.outputs)}
    alive: list[Any] = []
    crossing_tensors = []
    for index, unit in enumerate(units[:-1]):
        alive += unit.outputs
        alive = [tensor for tensor in alive if last_use.get(id(tensor), -1) > index]
        crossing_tensors.append(list(alive))
    return crossing_tensors


@dataclass(frozen=True)
class Segment:
    """Some units as a network: from the tensors in `takes` to those in `gives`, both identified by their ids."""

    network: keras.Model
    takes: list[int]
    gives: list[int]

    def __call__(self, inputs: list[tf.Tensor], training: bool) -> list[tf.Tensor]:
        """Returns the values of `gives` from those of `takes`."""
        return tf.nest.flatten(self.network(inputs, training=training))


def cut(network: keras.Model, cut_indices: Sequence[int]) -> list[Segment]:
    """Returns the network as segments, cut after each of `cut_indices` (1: after the first unit), in order."""
    units, outputs = units_of(network), tf.nest.flatten(network.outputs)
    bounds = [0, *cut_indices, len(units)]
    segments = []
    for begin, end in pairwise(bounds):
        own, later = units[begin:end], units[end:]
        made = {id(tensor): tensor for unit in own for tensor in unit.outputs}
        needed = {id(tensor) for unit in later for tensor in unit.inputs} | {id(tensor) for tensor in outputs}
        takes = {id(tensor): tensor for unit in own for tensor in unit.inputs if id(tensor) not in made}
        gives = {key: tensor for key, tensor in made.items() if key in needed}
        segments.append(Segment(keras.Model(list(takes.values()), list(gives.values())), list(takes), list(gives)))
    return segments


def run_segments(
    network: keras.Model,
    segments: Sequence[Segment],
    inputs: dict[str, tf.Tensor],
    run: Callable[[int, Segment, list[tf.Tensor]], list[tf.Tensor]],
) -> tf.Tensor | list[tf.Tensor]:
    """Returns the outputs of the network that was cut into `segments`.

    Args:
      network: the original network.
      segments: its segments, in order.
      inputs: {input: [batch, ...]}.
      run: maps the number of a segment (from 0), the segment and its input values to its output values.
    """
    names = zip(network.input_names, network.inputs, strict=True)
    values = {id(tensor): inputs[name] for name, tensor in names}
    for number, segment in enumerate(segments):
        segment_outputs = run(number, segment, [values[key] for key in segment.takes])
        values |= dict(zip(segment.gives, segment_outputs, strict=True))
    outputs = [values[id(tensor)] for tensor in tf.nest.flatten(network.outputs)]
    return tf.nest.pack_sequence_as(network.output, outputs)


def refuse_activity_regularisers(network: keras.Model, name: str, setting: str) -> None:
    """Rejects a network with losses from inside of segments.

    Raises:
      UserError: a layer has an activity regulariser; the message has the network's `name` and the excluded `setting`.
    """
    for unit in units_of(network):
        if getattr(unit.layer, "activity_regularizer", None) is not None:
            raise UserError(
                f"{name}: the layer {unit.layer.name!r} has an activity regulariser, not supported with {setting}; "
                "remove one of them"
            )


def cuts_after(network: keras.Model, layers: Sequence[str], name: str) -> list[int]:
    """Returns the indices of the cuts after the (last calls of the) layers with these names.

    Raises:
      UserError: the network has no such layer, or the layer is its last; the message has the network's `name`.
    """
    units = units_of(network)
    cut_indices = {unit.layer.name: index for index, unit in enumerate(units, start=1)}
    for layer in layers:
        if layer not in cut_indices:
            raise UserError(f"{name}: found {layer!r} to cut after; expected one of: {', '.join(cut_indices)}")
        if cut_indices[layer] == len(units):
            raise UserError(f"{name}: found {layer!r} to cut after; expected a layer before the last")
    return sorted({cut_indices[layer] for layer in layers})
