"""A network cut into segments, each a network of its own, between which only a few tensors pass."""

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
        """What its outputs take per example."""
        return sum(bytes_of(tensor) for tensor in self.outputs)


def shape_of(tensor: Any, batch: int) -> list[int]:
    """Returns the shape of a KerasTensor for so many examples; dimensions that are not known are 1."""
    return [batch, *(size or 1 for size in tensor.shape[1:])]


def bytes_of(tensor: Any) -> int:
    """Returns what a KerasTensor takes per example; dimensions that are not known count as 1."""
    return math.prod(shape_of(tensor, 1)) * tf.as_dtype(tensor.dtype).size


def bytes_of_variables(variables: Sequence[tf.Variable]) -> int:
    """Returns what variables take."""
    return sum(one.shape.num_elements() * one.dtype.size for one in variables)


def units_of(network: keras.Model) -> list[Unit]:
    """Returns the calls of layers in a functional or sequential network, inputs left out, in an order that runs.

    Raises:
      UserError: the network is neither; a model by subclassing shows no graph.
    """
    if not network.outputs:
        raise UserError(
            f"{network.name}: a model by subclassing cannot be cut into parts; build it by the functional API"
        )
    units, seen = [], set()
    # By hand, for a deep network would be a deep recursion.
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
    """Returns, for each place between units (after the first, after the second, ...), the tensors that cross it.

    The network's inputs are not among them: they are there anyway.
    """
    last_use = {}
    for place, unit in enumerate(units):
        last_use |= {id(tensor): place for tensor in unit.inputs}
    last_use |= {id(tensor): len(units) for tensor in tf.nest.flatten(network.outputs)}
    alive: list[Any] = []
    found = []
    for place, unit in enumerate(units[:-1]):
        alive += unit.outputs
        alive = [tensor for tensor in alive if last_use.get(id(tensor), -1) > place]
        found.append(list(alive))
    return found


@dataclass(frozen=True)
class Segment:
    """Some units as a network: from the tensors in `takes` to those in `gives`, which are named by their ids."""

    network: keras.Model
    takes: list[int]
    gives: list[int]

    def __call__(self, taken: list[tf.Tensor], training: bool) -> list[tf.Tensor]:
        """Returns the values of `gives` from those of `takes`."""
        return tf.nest.flatten(self.network(taken, training=training))


def cut(network: keras.Model, places: Sequence[int]) -> list[Segment]:
    """Returns the network as segments, cut after each of `places` (1: after the first unit), in order."""
    units, outputs = units_of(network), tf.nest.flatten(network.outputs)
    bounds = [0, *places, len(units)]
    segments = []
    for begin, end in pairwise(bounds):
        own, later = units[begin:end], units[end:]
        made = {id(tensor): tensor for unit in own for tensor in unit.outputs}
        wanted = {id(tensor) for unit in later for tensor in unit.inputs} | {id(tensor) for tensor in outputs}
        takes = {id(tensor): tensor for unit in own for tensor in unit.inputs if id(tensor) not in made}
        gives = {key: tensor for key, tensor in made.items() if key in wanted}
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
      network: which was cut.
      segments: its parts, in order.
      inputs: {input: [batch, ...]}.
      run: from the number of a segment, counted from 0, the segment, and what it takes, to what it gives.
    """
    names = zip(network.input_names, network.inputs, strict=True)
    known = {id(tensor): inputs[name] for name, tensor in names}
    for number, segment in enumerate(segments):
        given = run(number, segment, [known[key] for key in segment.takes])
        known |= dict(zip(segment.gives, given, strict=True))
    outputs = [known[id(tensor)] for tensor in tf.nest.flatten(network.outputs)]
    return tf.nest.pack_sequence_as(network.output, outputs)


def refuse_activity_regularisers(network: keras.Model, who: str, setting: str) -> None:
    """Refuses a network with losses that come from inside of segments.

    Raises:
      UserError: a layer has an activity regulariser; `who` names the network, `setting` what it is in the way of.
    """
    for unit in units_of(network):
        if getattr(unit.layer, "activity_regularizer", None) is not None:
            raise UserError(
                f"{who}: the layer {unit.layer.name!r} has an activity regulariser, which does not go together with "
                f"{setting}"
            )


def cuts_after(network: keras.Model, layers: Sequence[str], who: str) -> list[int]:
    """Returns the places after the (last calls of the) layers of these names.

    Raises:
      UserError: the network has no such layer, or nothing comes after it.
    """
    units = units_of(network)
    places = {unit.layer.name: place for place, unit in enumerate(units, start=1)}
    for name in layers:
        if name not in places:
            raise UserError(f"{who}: there is no layer {name!r} to cut after; there are: {', '.join(places)}")
        if places[name] == len(units):
            raise UserError(f"{who}: nothing comes after the layer {name!r}")
    return sorted({places[name] for name in layers})
