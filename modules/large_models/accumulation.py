"""Gradient accumulation: a batch passes in parts, and the optimiser takes one step for all of them.

Gradients are sums over examples, so those of the parts add up to those of the batch. What looks at the whole batch does
not add up: batch normalisation takes its statistics from each part, and its moving averages move once per part.
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
    """Returns the sums of the gradients and totals over the parts of a batch, which pass one after the other.

    A loop of the graph, so that only one part's activations exist at a time. Parts have the same size but for the last,
    which has what is left; a batch that is too small has fewer parts. No replica waits for another in here.

    Args:
      passed: from a part and its share of the batch, float32 [], to gradients of `variables` and totals.
      batch: nested tensors [examples, ...].
      micro_batches: number of parts.
      variables: what is trained; gradients of embeddings become dense.
      names: of the totals.
    """
    examples = tf.shape(tf.nest.flatten(batch)[0])[0]
    size = tf.maximum(1, -(-examples // micro_batches))
    parts = tf.maximum(1, -(-examples // size))  # a replica without examples still has its regularisation losses
    connected: list[bool] = []  # known once the body of the loop has been traced

    def part_of(number):
        begin, end = number * size, tf.minimum((number + 1) * size, examples)
        share = tf.cast(end - begin, tf.float32) / tf.cast(examples, tf.float32)
        part = tf.nest.map_structure(lambda tensor: tensor[begin:end], batch)
        return part, tf.where(examples > 0, share, 1.0)

    def one_more(number, gradients, totals):
        found, counted = passed(*part_of(number))
        connected[:] = [gradient is not None for gradient in found]
        added = [
            total if gradient is None else total + tf.convert_to_tensor(gradient)
            for total, gradient in zip(gradients, found, strict=True)
        ]
        return number + 1, added, {name: total + counted[name] for name, total in totals.items()}

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    nothing = {name: tf.zeros([]) for name in names}
    _, gradients, totals = tf.while_loop(
        lambda number, *_: number < parts,
        one_more,
        [tf.constant(0), zeros, nothing],
        parallel_iterations=1,
        maximum_iterations=micro_batches,
    )
    return [gradient if known else None for gradient, known in zip(gradients, connected, strict=True)], totals
