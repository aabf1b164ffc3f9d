"""Accounts for the memory of a training job by kind, from its graphs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.large_models.rematerialisation import Rematerialised
from stillhouse.modules.large_models.segments import Segment, bytes_of, bytes_of_variables, cut, shape_of
from stillhouse.modules.large_models.swap import Swapped, is_activation

# Operations whose output is their input's memory.
VIEWS = ("Identity", "IdentityN", "Reshape", "ExpandDims", "Squeeze")


@dataclass(frozen=True)
class Ledger:
    """Bytes on a device."""

    parameters: int
    gradients: int
    optimizer_state: int
    activations: int  # maximum over time of the forward pass's tensors that the backward pass needs


def kept_tensors(network: keras.Model, batch: int) -> dict[Any, int]:
    """Returns the forward pass's tensors that the backward pass of a training step needs: {tensor: bytes}.

    The tensors are those of a graph traced for this purpose. Tensors inside loops (TensorLists of recurrent layers) are
    not counted.

    Args:
      network: functional or sequential.
      batch: number of examples.
    """
    sizes: dict[Any, int] = {}

    def step(*tensors):
        inputs = list(tensors)
        with tf.GradientTape() as tape:
            tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
            outputs = tf.nest.flatten(network(inputs, training=True))

        def backward(*upstream):
            return tape.gradient(outputs, inputs + network.trainable_variables, output_gradients=list(upstream))

        specs = [tf.TensorSpec.from_tensor(output) for output in outputs]
        traced = tf.function(backward, autograph=False).get_concrete_function(*specs)
        for captured in traced.captured_inputs:
            if is_activation(captured) and captured.dtype != tf.variant:
                owner = _owner(captured)
                sizes[owner.ref()] = (owner.shape.num_elements() or 0) * owner.dtype.size

    specs = [tf.TensorSpec(shape_of(tensor, batch), tensor.dtype) for tensor in network.inputs]
    tf.function(step, autograph=False).get_concrete_function(*specs)
    return sizes


def _owner(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the tensor whose memory `tensor` is a view of."""
    while tensor.op.type in VIEWS:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def kept_bytes(network: keras.Model, batch: int) -> int:
    """Returns the bytes of the forward pass of `batch` examples that the backward pass needs."""
    return sum(kept_tensors(network, batch).values())


def _input_bytes(segment: Segment, batch: int) -> int:
    return batch * sum(bytes_of(tensor) for tensor in segment.network.inputs)


def activations(network: keras.Model, forward: Any, batch: int) -> int:
    """Returns the maximum bytes of activations on the device.

    Args:
      network: the network as built; its weights may differ from the trained ones.
      forward: the callable in training: a network, Rematerialised, or Swapped.
      batch: number of examples per micro-batch.
    """
    if not isinstance(forward, Rematerialised | Swapped):
        return kept_bytes(network, batch)
    segments = cut(network, forward.cut_indices)
    segment_bytes = [kept_bytes(segment.network, batch) for segment in segments]
    if isinstance(forward, Swapped):
        return max(map(sum, pairwise(segment_bytes)), default=segment_bytes[0])
    return sum(_input_bytes(segment, batch) for segment in segments[1:]) + max(segment_bytes)


def whole_ledger(network: keras.Model, optimizer: Any, forward: Any, batch: int) -> dict[str, int]:
    """Returns the ledger of a replica with the whole network; arguments as for `activations`."""
    return asdict(
        Ledger(
            parameters=bytes_of_variables(network.weights),
            gradients=bytes_of_variables(network.trainable_weights),
            optimizer_state=bytes_of_variables(optimizer.variables),
            activations=activations(network, forward, batch),
        )
    )


def ledgers_of_stages(
    network: keras.Model,
    optimizer: Any,
    cut_indices: Sequence[int],
    in_flight: Sequence[int],
    rematerialise: bool,
    batch: int,
) -> list[dict[str, int]]:
    """Returns the ledger of each stage.

    Args:
      network: the network as built.
      optimizer: its state is assumed to be distributed over the stages like the parameters.
      cut_indices: the indices of the units after which the network is cut.
      in_flight: the number of micro-batches whose activations each stage keeps.
      rematerialise: whether a stage keeps only its inputs of these micro-batches, and all activations of one.
      batch: examples per micro-batch.
    """
    seen: set[int] = set()
    trainable = bytes_of_variables(network.trainable_weights)
    ledgers = []
    for segment, micro_batches in zip(cut(network, cut_indices), in_flight, strict=True):
        own = [weight for weight in segment.network.weights if id(weight) not in seen]
        seen |= {id(weight) for weight in own}
        gradients = bytes_of_variables([weight for weight in own if weight.trainable])
        state = bytes_of_variables(optimizer.variables) * gradients // max(1, trainable)
        one_batch = kept_bytes(segment.network, batch)
        all_batches = (
            micro_batches * _input_bytes(segment, batch) + one_batch if rematerialise else micro_batches * one_batch
        )
        ledgers.append(asdict(Ledger(bytes_of_variables(own), gradients, state, all_batches)))
    return ledgers
