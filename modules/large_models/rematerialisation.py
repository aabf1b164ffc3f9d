"""Activations that are computed again in the backward pass instead of kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost": a network of n equal layers in √n segments keeps √n
tensors between segments and, in the backward pass, the activations of one segment at a time: O(√n) memory for one more
forward pass. The last segment is not computed again, for its activations are wanted at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.segments import (
    Segment,
    bytes_of,
    crossing,
    cut,
    refuse_activity_regularisers,
    run_segments,
    units_of,
)
from stillhouse.modules.models.random_generators import generators_of

# Sizes of the largest segment that are tried.
TRIALS = 64


@dataclass(frozen=True)
class Plan:
    """Where to cut a network, and what that leaves in memory, in bytes per example."""

    places: list[int]
    peak: int  # between segments, and the largest segment
    whole: int  # of all activations


def estimate(network: keras.Model, places: Sequence[int]) -> Plan:
    """Returns what the cuts at `places` leave in memory.

    The size of an activation is that of a layer's output; what a layer keeps inside itself is not seen.
    """
    inner, boundary = sizes_of(network)
    return Plan(list(places), _peak(inner, boundary, places), sum(inner))


def plan(network: keras.Model, budget: int | None = None) -> Plan:
    """Returns the cuts with the least memory, or, with a budget, those with the fewest segments that meet it.

    Args:
      network: functional or sequential.
      budget: bytes per example.

    Raises:
      UserError: no cuts meet the budget; the message has the least that would do.
    """
    inner, boundary = sizes_of(network)
    whole = sum(inner)
    tried: dict[int, list[int]] = {}
    for trial in range(1, TRIALS + 1):
        limit = max(max(inner), whole * trial // TRIALS)
        tried.setdefault(limit, _cheapest_cuts(inner, boundary, limit))
    plans = [Plan(places, _peak(inner, boundary, places), whole) for places in tried.values()]
    best = min(plans, key=lambda one: (one.peak, len(one.places)))
    if budget is None:
        return best
    fitting = [one for one in plans if one.peak <= budget]
    if not fitting:
        raise UserError(
            f"memory.activation_budget_mb: {budget:,} bytes per example are not enough; {best.peak:,} would be"
        )
    return min(fitting, key=lambda one: (len(one.places), one.peak))


def sizes_of(network: keras.Model) -> tuple[list[int], list[int]]:
    """Returns the bytes per example of each unit's outputs, and of what crosses each place between units."""
    units = units_of(network)
    between = [sum(bytes_of(tensor) for tensor in tensors) for tensors in crossing(units, network)]
    return [unit.bytes for unit in units], between


def _peak(inner: list[int], boundary: list[int], places: Sequence[int]) -> int:
    bounds = [0, *places, len(inner)]
    largest = max(sum(inner[begin:end]) for begin, end in pairwise(bounds))
    return sum(boundary[place - 1] for place in places) + largest


def _cheapest_cuts(inner: list[int], boundary: list[int], limit: int) -> list[int]:
    """Returns the cuts with the least between segments, such that no segment is larger than `limit`."""
    count = len(inner)
    best = [0.0] + [float("inf")] * count  # up to each place
    before = [0] * (count + 1)
    for end in range(1, count + 1):
        size = 0
        for begin in range(end - 1, -1, -1):
            size += inner[begin]
            if size > limit:
                break
            cost = best[begin] + (boundary[begin - 1] if begin else 0)
            if cost < best[end]:
                best[end], before[end] = cost, begin
    places, place = [], before[count]
    while place:
        places.append(place)
        place = before[place]
    return places[::-1]


class Rematerialised:
    """A network that keeps, of a training's forward pass, only what passes between its segments."""

    def __init__(self, network: keras.Model, places: Sequence[int], who: str):
        """Cuts the network after the units at `places`.

        Raises:
          UserError: a layer has an activity regulariser, whose loss would be lost; `who` names the network.
        """
        refuse_activity_regularisers(network, who, "memory.rematerialise")
        self._network = network
        self.places = list(places)
        self._segments = cut(network, places)

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor | list[tf.Tensor]:
        """As the network's own call: {input: [batch, ...]} -> outputs."""
        last = len(self._segments) - 1

        def run(number: int, segment: Segment, taken: list[tf.Tensor]) -> list[tf.Tensor]:
            again = training and number < last
            return recomputed(segment, taken) if again else segment(taken, training)

        return run_segments(self._network, self._segments, inputs, run)


def _state_of(segment: Segment) -> list[tf.Variable]:
    """Returns the variables that a forward pass changes: moving averages, and generators of dropout."""
    generators = generators_of(segment.network)
    found = [*segment.network.non_trainable_variables, *(one.state for one in generators if one is not None)]
    return list({id(variable): variable for variable in found}.values())


def in_turn(of_inputs: list, of_variables: list) -> tuple[list, list]:
    """Returns the gradients of a segment; those of its inputs, with which the segment before begins, come last.

    Else TensorFlow may put off the gradients of weights, and hold on to the activations that they need.
    """
    done = [one for one in tf.nest.flatten(of_variables, expand_composites=True) if one is not None]
    with tf.control_dependencies(done):
        return [None if one is None else tf.identity(one) for one in of_inputs], of_variables


def recomputed(segment: Segment, taken: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the outputs of a segment, whose gradient computes it again.

    The second pass starts from the state that the first one started from, so that dropout has the same mask, and leaves
    the state as it found it, so that moving averages move once.
    """
    state = _state_of(segment)
    before = [variable.read_value() for variable in state]

    @tf.custom_gradient
    def forward(*inputs):
        outputs = segment(list(inputs), training=True)

        def backward(*upstream, variables=None):
            variables = list(variables or [])
            # With these the pass waits until its turn has come, and TensorFlow does not take the first one's results.
            with tf.control_dependencies([part for part in upstream if part is not None]):
                inputs_again = [tf.identity(one) for one in inputs]
                after = [variable.read_value() for variable in state]
            with tf.control_dependencies(after + inputs_again):
                restored = [
                    variable.assign(value, read_value=False) for variable, value in zip(state, before, strict=True)
                ]
            restored = [operation for operation in restored if operation is not None]
            with tf.control_dependencies(restored + inputs_again), tf.GradientTape() as tape:
                tape.watch([one for one in inputs_again if one.dtype.is_floating])
                outputs_again = segment(inputs_again, training=True)
            with tf.control_dependencies(outputs_again):
                for variable, value in zip(state, after, strict=True):
                    variable.assign(value, read_value=False)
            found = tape.gradient(outputs_again, inputs_again + variables, output_gradients=list(upstream))
            return in_turn(found[: len(inputs)], found[len(inputs) :])

        return outputs, backward

    return tf.nest.flatten(forward(*taken))
