"""Compact soft targets: an example's logits as bytes, quantised to int8, or only the largest of them.

The bytes of an example are, for T teachers and n classes, all little-endian:

  scales   float32 [T]            int8 only: each teacher's largest absolute value / 127
  classes  unsigned [T, k]        `top` only: classes of the k largest logits, largest first; uint8 up to 256 classes
  values   int8 or floats [T, m]  the logits; m = n, or with `top` k + 1: the k largest and `rest`

`rest` replaces each of the n - k logits that are left out. It is the log of the mean of their exponentials,

  rest = log(sum over the classes left out of exp(z)) - log(n - k),

so that at T = 1 the softmax keeps the probability of every kept class and spreads the remainder evenly over the others.
At T > 1 the classes left out get more than their mass, as the mean of x^(1/T) is at most (the mean of x)^(1/T). With
k = n - 1 nothing is lost.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from stillhouse.modules.errors import UserError

LARGEST_BYTE = 127  # int8 is used symmetrically, without -128
LARGEST_HALF = float(np.finfo(np.float16).max)


def check_top(top: int | None, outputs: int) -> None:
    """Checks that the largest logits to keep are fewer than the classes.

    Raises:
      UserError: they are not.
    """
    if top is not None and top >= outputs:
        raise UserError(
            f"student.distillation.targets_top: found {top}; expected less than {outputs} (classes); lower it, or "
            "remove it to keep all logits"
        )


def class_dtype(outputs: int) -> np.dtype:
    """Returns the smallest type of class ids below `outputs` that TensorFlow decodes."""
    for dtype in (np.uint8, np.uint16):
        if outputs <= np.iinfo(dtype).max + 1:
            return np.dtype(dtype)
    return np.dtype(np.int32)


def pack_logits(logits: np.ndarray, dtype: str, top: int | None) -> list[bytes]:
    """Returns the bytes of each example.

    Args:
      logits: float32 [batch, teachers, outputs].
      dtype: float32, float16 or int8.
      top: number of largest logits to keep, less than outputs; None: all.
    """
    values, parts = logits.astype(np.float32), []
    if top is not None:
        classes = np.argsort(-values, axis=-1, kind="stable")
        kept = np.take_along_axis(values, classes[..., :top], axis=-1)
        others = np.take_along_axis(values, classes[..., top:], axis=-1)
        highest = others.max(axis=-1, keepdims=True)  # subtracted so that no exponential overflows
        rest = highest + np.log(np.exp(others - highest).mean(axis=-1, keepdims=True))
        parts.append(classes[..., :top].astype(class_dtype(logits.shape[-1])))
        values = np.concatenate([kept, rest], axis=-1)
    if dtype == "int8":
        scales = (np.abs(values).max(axis=-1) / LARGEST_BYTE).astype(np.float32)
        # A row of zeros has the scale 0; NaN is refused where logits are checked.
        divisors = np.where(scales > 0, scales, 1)[..., None]
        with np.errstate(invalid="ignore"):
            values = np.nan_to_num(np.rint(values / divisors)).clip(-LARGEST_BYTE, LARGEST_BYTE)
        parts.insert(0, scales)
    with np.errstate(over="ignore"):
        parts.append(values.astype(np.dtype(dtype)))
    rows = [part.reshape(len(logits), -1) for part in parts]
    return [b"".join(row.tobytes() for row in example) for example in zip(*rows, strict=True)]


def unpack_logits(packed: tf.Tensor, shape: list[int], dtype: str, top: int | None) -> tf.Tensor:
    """Returns the logits that `pack_logits` packed, float32 [batch, teachers, outputs].

    Args:
      packed: string [batch].
      shape: [teachers, outputs].
      dtype: float32, float16 or int8.
      top: as it was packed with.
    """
    teachers, outputs = shape
    take = _reader(packed)
    scales = take(tf.float32, teachers, 1) if dtype == "int8" else None
    classes = take(tf.as_dtype(class_dtype(outputs)), teachers, top) if top is not None else None
    values = tf.cast(take(tf.as_dtype(dtype), teachers, outputs if top is None else top + 1), tf.float32)
    if scales is not None:
        values *= scales
    if classes is None:
        return values
    rows = tf.size(packed) * teachers
    kept, rest = tf.reshape(values[..., :-1], [-1]), tf.reshape(values[..., -1:], [-1, 1])
    places = tf.stack([tf.repeat(tf.range(rows), top), tf.reshape(tf.cast(classes, tf.int32), [-1])], axis=-1)
    filled = tf.tensor_scatter_nd_update(tf.repeat(rest, outputs, axis=1), places, kept)
    return tf.reshape(filled, [-1, teachers, outputs])


def _reader(packed: tf.Tensor) -> Callable[[tf.DType, int, int], tf.Tensor]:
    """Returns a function that reads the next [batch, rows, columns] of a type."""
    position = 0

    def take(dtype: tf.DType, rows: int, columns: int) -> tf.Tensor:
        nonlocal position
        size = dtype.size * rows * columns
        part = tf.io.decode_raw(tf.strings.substr(packed, position, size), dtype)
        position += size
        return tf.reshape(part, [-1, rows, columns])

    return take
