"""Gradient accumulation: computes a batch in parts, with one optimiser step for all of them.

Gradients are sums over examples, so those of the parts add up to those of the batch. Operations on the whole batch do
not: batch normalisation computes its statistics per part, and updates its moving averages once per part.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Totals = dict[str, tf.Tensor]
Gradients = list[tf.Tensor | None]


def accumulate(
    passed: Callable[[Any, tf.Tensor], tuple[Gradients, Totals]],
    batch: Any,
    micro_batches: int,
    variables: Sequence[tf.Variable],
    names: Sequence[str],
) -> tuple[Gradients, Totals]:
    """Returns the sums of the gradients and totals over the parts of a batch, computed one after the other.

    A loop in the graph, so that only one part's activations exist at a time. All parts but the last, smaller one have
    the same size; a batch that is too small has fewer parts. No replica waits for another here.

    Args:
      passed: maps a part and its fraction of the batch, float32 [], to gradients of `variables` and totals.
      batch: nested tensors [examples, ...].
      micro_batches: number of parts.
      variables: the trained variables; gradients of embeddings become dense.
      names: names of the totals.
    """
    examples = tf.shape(tf.nest.flatten(batch)[0])[0]
    size = tf.maximum(1, -(-examples // micro_batches))
    parts = tf.maximum(1, -(-examples // size))  # a replica without examples still has its regularisation losses
    connected: list[bool] = []  # filled when the body of the loop is traced

    def part_of(number):
        begin, end = number * size, tf.minimum((number + 1) * size, examples)
        fraction = tf.cast(end - begin, tf.float32) / tf.cast(examples, tf.float32)
        part = tf.nest.map_structure(lambda tensor: tensor[begin:end], batch)
        return part, tf.where(examples > 0, fraction, 1.0)

    def add_part(number, gradient_sums, totals):
        part_gradients, part_totals = passed(*part_of(number))
        connected[:] = [gradient is not None for gradient in part_gradients]
        added = [
            total if gradient is None else total + tf.convert_to_tensor(gradient)
            for total, gradient in zip(gradient_sums, part_gradients, strict=True)
        ]
        return number + 1, added, {name: total + part_totals[name] for name, total in totals.items()}

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    nothing = {name: tf.zeros([]) for name in names}
    _, gradients, totals = tf.while_loop(
        lambda number, *_: number < parts,
        add_part,
        [tf.constant(0), zeros, nothing],
        parallel_iterations=1,
        maximum_iterations=micro_batches,
    )
    return [gradient if used else None for gradient, used in zip(gradients, connected, strict=True)], totals
