"""Packs the teachers' targets and counts, in Beam's counters, what that changes."""

import numpy as np
import tensorflow as tf
from apache_beam.metrics import Metrics

from stillhouse.modules.ingestion.compact import LARGEST_HALF, pack_logits, unpack_logits
from stillhouse.modules.models.heads import Head
from stillhouse.modules.models.teachers import LOGITS

COUNTERS = "soft_targets"  # Beam's namespace
NANO = 1e-9  # Beam counts integers: billionths of a nat
TINY = 1e-300  # of which the logarithm is finite


def pack(name: str, values: np.ndarray, dtype: str, top: int | None, head: Head) -> list[bytes]:
    """Returns the bytes of a target for each example of a batch, and counts examples that float16 cannot hold.

    Args:
      name: of the target.
      values: float32 [batch, ...].
      dtype: float32, float16 or int8, of the logits; hidden states are float16 if it is int8.
      top: number of largest logits to keep; None: all.
      head: the teachers' head.
    """
    if dtype == "float16" or name != LOGITS:
        too_large = np.isfinite(values) & (np.abs(values) > LARGEST_HALF)
        Metrics.counter(COUNTERS, "overflow").inc(int(too_large.any(axis=tuple(range(1, values.ndim))).sum()))
    if name != LOGITS:
        with np.errstate(over="ignore"):
            return [row.tobytes() for row in values.astype(np.float16)]
    packed = pack_logits(values, dtype, top)
    if head.name != "regression":
        rebuilt = unpack_logits(tf.constant(packed), list(values.shape[1:]), dtype, top).numpy()
        agreeing, kl = changes(values, rebuilt, head)
        Metrics.counter(COUNTERS, "agreeing").inc(int(agreeing.sum()))
        Metrics.counter(COUNTERS, "kl").inc(round(float(kl.sum()) / NANO))
    return packed


def changes(exact: np.ndarray, rebuilt: np.ndarray, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for each example, what compact logits change in the mean of the teachers' distributions at T = 1.

    Args:
      exact: float32 [batch, teachers, outputs].
      rebuilt: likewise.
      head: classification or multi_label.

    Returns:
      bool [batch], whether the most likely class (or all labels) are the same; and the KL divergence in nats, 0 for
      logits that are not finite, which are refused elsewhere. float64 [batch].
    """
    p, q = (_mean_distribution(logits.astype(np.float64), head) for logits in (exact, rebuilt))
    axes = tuple(range(1, p.ndim))
    divergence = (p * (np.log(np.maximum(p, TINY)) - np.log(np.maximum(q, TINY)))).sum(axis=axes)
    agreeing = (p.argmax(axis=-1) == q.argmax(axis=-1)).reshape(len(p), -1).all(axis=-1)
    return agreeing, np.maximum(np.nan_to_num(divergence, nan=0.0, posinf=0.0), 0.0)


def _mean_distribution(logits: np.ndarray, head: Head) -> np.ndarray:
    """Returns the teachers' mean distribution of logits [batch, teachers, outputs].

    It is [batch, outputs] for classification, [batch, labels, 2] for multi_label: of each label's absence and presence.
    """
    if head.name == "multi_label":
        logits = np.stack([np.zeros_like(logits), logits], axis=-1)
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (exponentials / exponentials.sum(axis=-1, keepdims=True)).mean(axis=1)
