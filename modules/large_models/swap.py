"""Offloads activations to host memory until the backward pass.

The activations that a block's backward pass needs are copied to the host as soon as they are computed, and back to the
device when the backward pass of the following block begins: one block ahead, so that copies and computation overlap
(vDNN, Rhu et al. 2016, section 3). The last block is not swapped, since its activations are needed at once.
"""

from collections.abc import Sequence
from itertools import pairwise

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.rematerialisation import Plan, in_turn, sizes_of
from stillhouse.modules.large_models.segments import Segment, cut, refuse_activity_regularisers, run_segments

HOST = "/device:CPU:0"  # of the device's task

# Statistics of a layer and the like are not worth a copy.
MIN_RANK = 2


def refuse_host_as_device(devices: Sequence[str], name: str) -> None:
    """Rejects a swap from the host to itself.

    Raises:
      UserError: one of `devices` is the host; the message has the network's `name`.
    """
    for device in devices:
        spec = tf.DeviceSpec.from_string(device)
        if (spec.device_type, spec.device_index) == ("CPU", 0):
            raise UserError(
                f"{name}: memory.swap: needs a GPU; found the CPU, whose memory is the host's; set rematerialise or "
                "micro_batches instead"
            )


def estimate_swap(network: keras.Model, cut_indices: Sequence[int]) -> Plan:
    """Returns the plan with the swap at `cut_indices` and its memory on the device, that of two neighbouring blocks."""
    inner, _ = sizes_of(network)
    blocks = [sum(inner[begin:end]) for begin, end in pairwise([0, *cut_indices, len(inner)])]
    return Plan(list(cut_indices), max(map(sum, pairwise(blocks)), default=sum(inner)), sum(inner))


class Swapped:
    """A network whose blocks' activations are offloaded to the host."""

    def __init__(self, network: keras.Model, cut_indices: Sequence[int], name: str, host: str = HOST):
        """Cuts the network into blocks after the units at `cut_indices`.

        Raises:
          UserError: a layer has an activity regulariser, whose loss would be lost; `name` is the network's.
        """
        refuse_activity_regularisers(network, name, "memory.swap")
        self._network = network
        self.cut_indices = list(cut_indices)
        self._segments = cut(network, cut_indices)
        self._host = host

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor | list[tf.Tensor]:
        """Returns the network's outputs from {input: [batch, ...]}; in training only within a tf.function."""
        begun: dict[int, list[tf.Tensor]] = {}  # by segment: tensors that exist when its backward pass begins
        last = len(self._segments) - 1

        def run(number: int, segment: Segment, segment_inputs: list[tf.Tensor]) -> list[tf.Tensor]:
            if not training:
                return segment(segment_inputs, training=False)
            if number == last:
                return _noted(segment(segment_inputs, training=True), number, begun)
            return _swapped(segment, segment_inputs, number, begun, self._host)

        return run_segments(self._network, self._segments, inputs, run)


def _noted(outputs: list[tf.Tensor], number: int, begun: dict[int, list[tf.Tensor]]) -> list[tf.Tensor]:
    """Returns the outputs, whose gradient records its upstream tensors in `begun`."""

    @tf.custom_gradient
    def noted(*tensors):
        def backward(*upstream):
            begun[number] = list(upstream)
            return upstream

        return tensors, backward

    return tf.nest.flatten(noted(*outputs))


def _swapped(
    segment: Segment, segment_inputs: list[tf.Tensor], number: int, begun: dict[int, list[tf.Tensor]], host: str
) -> list[tf.Tensor]:
    """Returns the outputs of a segment, whose gradient reads the activations from the host."""

    @tf.custom_gradient
    def forward(*inputs):
        with tf.GradientTape() as tape:
            tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
            outputs = segment(list(inputs), training=True)

        def backward(*upstream, variables=None):
            variables = list(variables or [])
            # Identities of their own: TensorFlow drops dependencies on a function without effects.
            begun[number] = [tf.identity(gradient) for gradient in upstream]
            # Parallel segments may run in another order; then there is nothing to wait for.
            ahead = begun.get(number + 1, begun[number])

            def backward_pass(*output_gradients):
                return tape.gradient(outputs, [*inputs, *variables], output_gradients=list(output_gradients))

            traced = tf.function(backward_pass, autograph=False).get_concrete_function(
                *(tf.TensorSpec.from_tensor(gradient) for gradient in upstream)
            )
            # The forward pass must keep what the backward pass captures.
            traced.set_external_captures([_by_host(captured, ahead, host) for captured in traced.captured_inputs])
            gradients = traced(*upstream)
            return in_turn(gradients[: len(inputs)], gradients[len(inputs) :])

        return outputs, backward

    return tf.nest.flatten(forward(*segment_inputs))


def is_activation(captured: tf.Tensor) -> bool:
    """Returns whether a tensor of the forward pass, captured by a backward pass, is computed with each batch."""
    made_here = tf.is_symbolic_tensor(captured) and captured.dtype != tf.resource
    return made_here and captured.op.type != "ReadVariableOp"


def _by_host(captured: tf.Tensor, ahead: list[tf.Tensor], host: str) -> tf.Tensor:
    rank = captured.shape.rank
    if not is_activation(captured) or (rank is not None and rank < MIN_RANK):
        return captured
    # It leaves the device as soon as it is computed and returns once `ahead` is. TensorFlow would optimise a
    # tf.identity away.
    with tf.device(host), tf.control_dependencies(ahead):
        return tf.raw_ops.Snapshot(input=captured, name="swapped")
