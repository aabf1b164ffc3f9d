"""Where the memory of a training goes, by kind, taken from its graphs."""

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
    activations: int  # what the backward pass needs of the forward pass, at the most at a time


def kept_tensors(network: keras.Model, batch: int) -> dict[Any, int]:
    """Returns what the backward pass of a training step takes from the forward pass: {tensor: bytes}.

    The tensors are those of a graph that is traced for the purpose. What loops keep inside themselves (TensorLists of
    recurrent layers) is not seen.

    Args:
      network: functional or sequential.
      batch: examples that pass.
    """
    found: dict[Any, int] = {}

    def step(*inputs):
        inputs = list(inputs)
        with tf.GradientTape() as tape:
            tape.watch([one for one in inputs if one.dtype.is_floating])
            outputs = tf.nest.flatten(network(inputs, training=True))

        def backward(*upstream):
            return tape.gradient(outputs, inputs + network.trainable_variables, output_gradients=list(upstream))

        specs = [tf.TensorSpec.from_tensor(one) for one in outputs]
        traced = tf.function(backward, autograph=False).get_concrete_function(*specs)
        for one in traced.captured_inputs:
            if is_activation(one) and one.dtype != tf.variant:
                one = _owner(one)
                found[one.ref()] = (one.shape.num_elements() or 0) * one.dtype.size

    specs = [tf.TensorSpec(shape_of(one, batch), one.dtype) for one in network.inputs]
    tf.function(step, autograph=False).get_concrete_function(*specs)
    return found


def _owner(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the tensor whose memory this one shows."""
    while tensor.op.type in VIEWS:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def kept_bytes(network: keras.Model, batch: int) -> int:
    """Returns how many bytes the backward pass takes from the forward pass of `batch` examples."""
    return sum(kept_tensors(network, batch).values())


def _taken_bytes(segment: Segment, batch: int) -> int:
    return batch * sum(bytes_of(one) for one in segment.network.inputs)


def activations(network: keras.Model, forward: Any, batch: int) -> int:
    """Returns the bytes of activations that are on the device at the most.

    Args:
      network: as it was built; its weights may be others than those that are trained.
      forward: what is called in training: a network, Rematerialised, or Swapped.
      batch: examples that pass at a time.
    """
    if not isinstance(forward, Rematerialised | Swapped):
        return kept_bytes(network, batch)
    segments = cut(network, forward.places)
    kept = [kept_bytes(segment.network, batch) for segment in segments]
    if isinstance(forward, Swapped):
        return max(map(sum, pairwise(kept)), default=kept[0])
    return sum(_taken_bytes(segment, batch) for segment in segments[1:]) + max(kept)


def whole_ledger(network: keras.Model, optimizer: Any, forward: Any, batch: int) -> dict[str, int]:
    """Returns the ledger of a replica that has all of the network; arguments as `activations`'."""
    return asdict(
        Ledger(
            parameters=bytes_of_variables(network.weights),
            gradients=bytes_of_variables(network.trainable_weights),
            optimizer_state=bytes_of_variables(optimizer.variables),
            activations=activations(network, forward, batch),
        )
    )


def ledgers_of_stages(
    network: keras.Model, optimizer: Any, places: Sequence[int], kept: Sequence[int], rematerialise: bool, batch: int
) -> list[dict[str, int]]:
    """Returns the ledger of each stage.

    Args:
      network: as it was built.
      optimizer: its state is taken to be shared out as the parameters are.
      places: after which units it is cut.
      kept: how many micro-batches each stage keeps the activations of.
      rematerialise: it keeps what it was given of them, and all of one.
      batch: examples of a micro-batch.
    """
    seen: set[int] = set()
    trainable = bytes_of_variables(network.trainable_weights)
    found = []
    for segment, in_flight in zip(cut(network, places), kept, strict=True):
        own = [one for one in segment.network.weights if id(one) not in seen]
        seen |= {id(one) for one in own}
        gradients = bytes_of_variables([one for one in own if one.trainable])
        of_one = kept_bytes(segment.network, batch)
        state = bytes_of_variables(optimizer.variables) * gradients // max(1, trainable)
        of_all = in_flight * _taken_bytes(segment, batch) + of_one if rematerialise else in_flight * of_one
        found.append(asdict(Ledger(bytes_of_variables(own), gradients, state, of_all)))
    return found
