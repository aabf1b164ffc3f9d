"""Activations that wait in the host's memory for the backward pass.

What the backward pass of a block needs is copied to the host as soon as it is there, and back to the device when the
backward pass of the block behind it begins: one block ahead, so that copies and computation overlap (vDNN, Rhu et al.
2016, section 3). The last block is not swapped, for its activations are wanted at once.
"""

from collections.abc import Sequence
from itertools import pairwise

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.rematerialisation import Plan, in_turn, sizes_of
from stillhouse.modules.large_models.segments import Segment, cut, refuse_activity_regularisers, run_segments

HOST = "/device:CPU:0"  # of the task that a device belongs to

# Statistics of a layer and the like are not worth a copy.
LEAST_RANK = 2


def refuse_host_as_device(devices: Sequence[str], who: str) -> None:
    """Refuses to swap from the host to itself.

    Raises:
      UserError: one of `devices` is the host; `who` names the network.
    """
    for device in devices:
        spec = tf.DeviceSpec.from_string(device)
        if (spec.device_type, spec.device_index) == ("CPU", 0):
            raise UserError(
                f"{who}: memory.swap: it trains on the CPU, whose memory is the host's already; swap is of use with a "
                "GPU, rematerialise and micro_batches save memory anywhere"
            )


def estimate_swap(network: keras.Model, places: Sequence[int]) -> Plan:
    """Returns what swapping leaves on the device, in bytes per example: of two neighbouring blocks."""
    inner, _ = sizes_of(network)
    blocks = [sum(inner[begin:end]) for begin, end in pairwise([0, *places, len(inner)])]
    return Plan(list(places), max(map(sum, pairwise(blocks)), default=sum(inner)), sum(inner))


class Swapped:
    """A network whose blocks' activations wait on the host."""

    def __init__(self, network: keras.Model, places: Sequence[int], who: str, host: str = HOST):
        """Cuts the network into blocks after the units at `places`.

        Raises:
          UserError: a layer has an activity regulariser, whose loss would be lost; `who` names the network.
        """
        refuse_activity_regularisers(network, who, "memory.swap")
        self._network = network
        self.places = list(places)
        self._segments = cut(network, places)
        self._host = host

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor | list[tf.Tensor]:
        """As the network's own call: {input: [batch, ...]} -> outputs. In training within a tf.function only."""
        begun: dict[int, list[tf.Tensor]] = {}  # by segment: what is there when its backward pass begins
        last = len(self._segments) - 1

        def run(number: int, segment: Segment, taken: list[tf.Tensor]) -> list[tf.Tensor]:
            if not training:
                return segment(taken, training=False)
            if number == last:
                return _noted(segment(taken, training=True), number, begun)
            return _swapped(segment, taken, number, begun, self._host)

        return run_segments(self._network, self._segments, inputs, run)


def _noted(outputs: list[tf.Tensor], number: int, begun: dict[int, list[tf.Tensor]]) -> list[tf.Tensor]:
    """Returns the outputs, whose gradient notes when it is there."""

    @tf.custom_gradient
    def noted(*tensors):
        def backward(*upstream):
            begun[number] = list(upstream)
            return upstream

        return tensors, backward

    return tf.nest.flatten(noted(*outputs))


def _swapped(
    segment: Segment, taken: list[tf.Tensor], number: int, begun: dict[int, list[tf.Tensor]], host: str
) -> list[tf.Tensor]:
    """Returns the outputs of a segment, whose gradient takes the activations from the host."""

    @tf.custom_gradient
    def forward(*inputs):
        inputs = list(inputs)
        with tf.GradientTape() as tape:
            tape.watch([one for one in inputs if one.dtype.is_floating])
            outputs = segment(inputs, training=True)

        def backward(*upstream, variables=None):
            variables = list(variables or [])
            # Of their own: TensorFlow drops what waits for a function without effects.
            begun[number] = [tf.identity(one) for one in upstream]
            # Segments beside each other may have their turn in another order; then there is nothing to wait for.
            ahead = begun.get(number + 1, begun[number])

            def gradients(*given):
                return tape.gradient(outputs, inputs + variables, output_gradients=list(given))

            traced = tf.function(gradients, autograph=False).get_concrete_function(
                *(tf.TensorSpec.from_tensor(one) for one in upstream)
            )
            # What the backward pass captures is what the forward pass has to keep for it.
            traced.set_external_captures([_by_host(one, ahead, host) for one in traced.captured_inputs])
            found = traced(*upstream)
            return in_turn(found[: len(inputs)], found[len(inputs) :])

        return outputs, backward

    return tf.nest.flatten(forward(*taken))


def is_activation(captured: tf.Tensor) -> bool:
    """Returns whether a tensor that a backward pass takes from the forward pass is made anew with each batch."""
    made_here = tf.is_symbolic_tensor(captured) and captured.dtype != tf.resource
    return made_here and captured.op.type != "ReadVariableOp"


def _by_host(captured: tf.Tensor, ahead: list[tf.Tensor], host: str) -> tf.Tensor:
    rank = captured.shape.rank
    if not is_activation(captured) or (rank is not None and rank < LEAST_RANK):
        return captured
    # It leaves the device as soon as it is there; the host gives it back once `ahead` is. TensorFlow would optimise a
    # tf.identity away.
    with tf.device(host), tf.control_dependencies(ahead):
        return tf.raw_ops.Snapshot(input=captured, name="swapped")
