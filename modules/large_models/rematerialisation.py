"""Rematerialisation (activation checkpointing): recomputes activations in the backward pass instead of keeping them.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost": a network of n equal layers in √n segments keeps √n
tensors between segments and, in the backward pass, the activations of one segment at a time: O(√n) memory for one more
forward pass. The last segment is not recomputed, since its activations are needed at once.
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

# Number of sizes tried for the largest segment.
TRIALS = 64


@dataclass(frozen=True)
class Plan:
    """Cuts of a network, and the memory of its activations in bytes per example."""

    cut_indices: list[int]  # indices of the units after which to cut
    peak: int  # tensors between segments, and the largest segment
    whole: int  # all activations


def estimate(network: keras.Model, cut_indices: Sequence[int]) -> Plan:
    """Returns the plan with the cuts at `cut_indices` and its memory.

    The size of an activation is that of a layer's output; tensors inside a layer are not counted.
    """
    inner, boundary = sizes_of(network)
    return Plan(list(cut_indices), _peak(inner, boundary, cut_indices), sum(inner))


def plan(network: keras.Model, budget: int | None = None) -> Plan:
    """Returns the cuts with the least memory, or, with a budget, those with the fewest segments that meet it.

    Args:
      network: functional or sequential.
      budget: maximum bytes per example; None: none.

    Raises:
      UserError: no cuts meet the budget; the message has the smallest budget that would.
    """
    inner, boundary = sizes_of(network)
    whole = sum(inner)
    tried: dict[int, list[int]] = {}
    for trial in range(1, TRIALS + 1):
        limit = max(max(inner), whole * trial // TRIALS)
        tried.setdefault(limit, _cheapest_cuts(inner, boundary, limit))
    plans = [Plan(cut_indices, _peak(inner, boundary, cut_indices), whole) for cut_indices in tried.values()]
    best = min(plans, key=lambda candidate: (candidate.peak, len(candidate.cut_indices)))
    if budget is None:
        return best
    fitting = [candidate for candidate in plans if candidate.peak <= budget]
    if not fitting:
        raise UserError(
            f"memory.activation_budget_mb: found {budget:,} bytes per example; expected {best.peak:,} or more; raise it"
        )
    return min(fitting, key=lambda candidate: (len(candidate.cut_indices), candidate.peak))


def sizes_of(network: keras.Model) -> tuple[list[int], list[int]]:
    """Returns the bytes per example of each unit's outputs, and of the tensors across each cut between units."""
    units = units_of(network)
    between = [sum(bytes_of(tensor) for tensor in tensors) for tensors in crossing(units, network)]
    return [unit.bytes for unit in units], between


def _peak(inner: list[int], boundary: list[int], cut_indices: Sequence[int]) -> int:
    bounds = [0, *cut_indices, len(inner)]
    largest = max(sum(inner[begin:end]) for begin, end in pairwise(bounds))
    return sum(boundary[cut_index - 1] for cut_index in cut_indices) + largest


def _cheapest_cuts(inner: list[int], boundary: list[int], limit: int) -> list[int]:
    """Returns the cuts with the fewest bytes between segments, such that no segment is larger than `limit`."""
    count = len(inner)
    best = [0.0] + [float("inf")] * count  # up to each unit
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
    cut_indices, cut_index = [], before[count]
    while cut_index:
        cut_indices.append(cut_index)
        cut_index = before[cut_index]
    return cut_indices[::-1]


class Rematerialised:
    """A network that keeps only the tensors between its segments from the forward pass of training."""

    def __init__(self, network: keras.Model, cut_indices: Sequence[int], name: str):
        """Cuts the network after the units at `cut_indices`.

        Raises:
          UserError: a layer has an activity regulariser, whose loss would be lost; `name` is the network's.
        """
        refuse_activity_regularisers(network, name, "memory.rematerialise")
        self._network = network
        self.cut_indices = list(cut_indices)
        self._segments = cut(network, cut_indices)

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor | list[tf.Tensor]:
        """Returns the network's outputs from {input: [batch, ...]}."""
        last = len(self._segments) - 1

        def run(number: int, segment: Segment, segment_inputs: list[tf.Tensor]) -> list[tf.Tensor]:
            recompute = training and number < last
            return recomputed(segment, segment_inputs) if recompute else segment(segment_inputs, training)

        return run_segments(self._network, self._segments, inputs, run)


def _state_of(segment: Segment) -> list[tf.Variable]:
    """Returns the variables that a forward pass changes: moving averages, and generators of dropout."""
    generators = [generator for generator in generators_of(segment.network) if generator is not None]
    variables = [*segment.network.non_trainable_variables, *(generator.state for generator in generators)]
    return list({id(variable): variable for variable in variables}.values())


def in_turn(input_gradients: list, variable_gradients: list) -> tuple[list, list]:
    """Returns the gradients of a segment; those of its inputs, with which the previous segment begins, come last.

    Otherwise TensorFlow may delay the gradients of weights and keep the activations that they need.
    """
    flat = tf.nest.flatten(variable_gradients, expand_composites=True)
    with tf.control_dependencies([gradient for gradient in flat if gradient is not None]):
        delayed = [None if gradient is None else tf.identity(gradient) for gradient in input_gradients]
        return delayed, variable_gradients


def recomputed(segment: Segment, segment_inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the outputs of a segment, whose gradient recomputes it.

    The second pass starts from the same state as the first, so that dropout has the same mask, and restores the state
    afterwards, so that moving averages are updated once.
    """
    state = _state_of(segment)
    before = [variable.read_value() for variable in state]

    @tf.custom_gradient
    def forward(*inputs):
        outputs = segment(list(inputs), training=True)

        def backward(*upstream, variables=None):
            variables = list(variables or [])
            # With these the pass waits for its turn, and TensorFlow does not reuse the first pass's results.
            with tf.control_dependencies([part for part in upstream if part is not None]):
                inputs_again = [tf.identity(tensor) for tensor in inputs]
                after = [variable.read_value() for variable in state]
            with tf.control_dependencies(after + inputs_again):
                restored = [
                    variable.assign(value, read_value=False) for variable, value in zip(state, before, strict=True)
                ]
            restored = [operation for operation in restored if operation is not None]
            with tf.control_dependencies(restored + inputs_again), tf.GradientTape() as tape:
                tape.watch([tensor for tensor in inputs_again if tensor.dtype.is_floating])
                outputs_again = segment(inputs_again, training=True)
            with tf.control_dependencies(outputs_again):
                for variable, value in zip(state, after, strict=True):
                    variable.assign(value, read_value=False)
            gradients = tape.gradient(outputs_again, inputs_again + variables, output_gradients=list(upstream))
            return in_turn(gradients[: len(inputs)], gradients[len(inputs) :])

        return outputs, backward

    return tf.nest.flatten(forward(*segment_inputs))
