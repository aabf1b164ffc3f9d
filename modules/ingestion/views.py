"""Views: batches of training inputs changed at random, in the order augment, noise, swap, mixup.

A view is a function of a batch and a seed, by TensorFlow's stateless random functions.

  augment  the task's augment(features, seed)
  noise    Gaussian, in standard deviations of each element of a float feature over labelled training examples
  swap     elements taken from another example of the batch (as the corruption of SCARF, Bahri et al. 2022)
  mixup    x = share * x1 + (1 - share) * x2, share ~ Beta(a, a) (Zhang et al. 2018)

Of an example of `mixup`, the partner's label and the share travel in the targets; the hard loss is
share * loss(y1) + (1 - share) * loss(y2). The larger share is always the first example's: the pair of both orders is
the same, and the example keeps its own label. Features that are not dense stay as they are: no network reads them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.files import read
from stillhouse.modules.models.heads import Head
from stillhouse.modules.settings import InputChanges

# Names in the targets, and of features in files of views.
PARTNER = "mixup/label"  # as the labels
SHARE = "mixup/share"  # float32 [batch], of the example itself: 0.5 to 1

EXAMPLES_TO_MEASURE = 10_000  # standard deviations are of the first ones, at most
BATCH = 512
NOISE, SWAP, MIXUP = range(3)  # numbers of the streams of random numbers


@dataclass(frozen=True)
class Views:
    """Changes a parsed batch (features, labels, targets) by a seed, int32 [2]."""

    augment: Callable | None = None
    noise: dict[str, np.ndarray] = field(default_factory=dict)  # standard deviations by feature, without the batch
    swap: dict[str, float] = field(default_factory=dict)  # probability by feature
    mixup: float | None = None
    features: Sequence[str] = ()  # that mixup mixes

    def with_augment(self, augment: Callable | None) -> "Views":
        """Returns these views with the task's function, which is not pickled on its way to a worker."""
        return replace(self, augment=augment)

    def __call__(self, example: tuple, seed: tf.Tensor) -> tuple:
        """Returns the view."""
        features, labels, targets = example
        if self.augment:
            features = self.augment(features, seed)
        features = dict(features)
        for name, (value, deviation, own) in _seeded(features, self.noise, seed, NOISE).items():
            features[name] = value + deviation * tf.random.stateless_normal(tf.shape(value), own)
        for name, (value, probability, own) in _seeded(features, self.swap, seed, SWAP).items():
            taken = tf.random.stateless_uniform(tf.shape(value), _stream(own, 0)) < probability
            features[name] = tf.where(taken, partners(value, _stream(own, 1)), value)
        if self.mixup:
            own = _stream(seed, MIXUP)
            share = beta_shares(tf.shape(labels)[0], self.mixup, _stream(own, 0))
            share.set_shape(labels.shape[:1])
            for name in [name for name in self.features if name in features]:
                value = features[name]
                shaped = tf.reshape(share, [-1] + [1] * (value.shape.rank - 1))
                features[name] = shaped * value + (1.0 - shaped) * partners(value, _stream(own, 1))
            targets = {**targets, PARTNER: partners(labels, _stream(own, 1)), SHARE: share}
        return features, labels, targets


def _seeded(features: dict, parameters: dict, seed: tf.Tensor, number: int) -> dict[str, tuple]:
    """Returns, by feature, its value, its parameter, and a seed of its own; without those that augment leaves out."""
    own = _stream(seed, number)
    return {
        name: (features[name], parameters[name], _stream(own, position))
        for position, name in enumerate(sorted(parameters))
        if name in features
    }


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)


def partners(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns the values [batch, ...] of each example's partner, another one if the batch has two or more.

    The partners are a function of the seed and the batch's size: the successors in a cycle of random order.
    """
    order = tf.argsort(tf.random.stateless_uniform(tf.shape(values)[:1], seed))
    partner = tf.gather(tf.roll(order, -1, axis=0), tf.math.invert_permutation(order))
    return tf.ensure_shape(tf.gather(values, partner), values.shape)


def beta_shares(count: tf.Tensor, a: float, seed: tf.Tensor) -> tf.Tensor:
    """Returns max(share, 1 - share), share ~ Beta(a, a), float32 [count]."""
    # Two gammas give a beta; in float64, because for a small `a` most of them are below what float32 holds.
    gammas = tf.random.stateless_gamma([count, 2], seed, alpha=tf.constant(a, tf.float64), dtype=tf.float64)
    total = tf.reduce_sum(gammas, axis=-1)
    share = tf.math.divide_no_nan(tf.reduce_max(gammas, axis=-1), total)
    return tf.cast(tf.where(total > 0, share, 1.0), tf.float32)


def make_views(
    changes: InputChanges,
    feature_spec: dict,
    label: str,
    files: Sequence[str],
    augment: Callable | None,
) -> Views:
    """Returns the views of a training job, or of its soft targets.

    Args:
      changes: the settings.
      feature_spec: parsing spec of the transformed features, including the label.
      label: name of the label.
      files: labelled training examples, for the standard deviations.
      augment: the task's function, if the settings use it.

    Raises:
      UserError: a change does not fit a feature.
    """
    kinds = kinds_of(feature_spec, label)
    check_changes(changes, kinds)
    noise = _by_feature(changes.noise, [name for name, kind in kinds.items() if kind.is_floating])
    deviations = standard_deviations(files, {name: feature_spec[name] for name in noise}) if noise else {}
    return Views(
        augment=augment if changes.augment else None,
        noise={name: (scale * deviations[name]).astype(np.float32) for name, scale in noise.items()},
        swap=_by_feature(changes.swap, kinds),
        mixup=changes.mixup,
        features=sorted(kinds),
    )


def kinds_of(feature_spec: dict, label: str) -> dict[str, tf.DType]:
    """Returns the types of the dense features, without the label: those that networks can read."""
    return {
        name: spec.dtype
        for name, spec in feature_spec.items()
        if name != label and isinstance(spec, tf.io.FixedLenFeature)
    }


def check_changes(changes: InputChanges, kinds: dict[str, tf.DType], prefix: str = "") -> None:
    """Checks that the changes fit the features.

    Args:
      changes: the settings.
      kinds: types of the features, by name.
      prefix: of the keys in messages, such as "student.".

    Raises:
      UserError: noise or mixup of integers or strings, or a feature that does not exist.
    """
    floats = [name for name, kind in kinds.items() if kind.is_floating]
    for key in ("noise", "swap"):
        value = getattr(changes, key)
        unknown = sorted(set(value) - set(kinds)) if isinstance(value, dict) else []
        if unknown:
            raise UserError(
                f"{prefix}{key}: found the feature {unknown[0]!r}; expected one of: {', '.join(sorted(kinds))}"
            )
    if isinstance(changes.noise, dict):
        for name in sorted(set(changes.noise) - set(floats)):
            raise UserError(
                f"{prefix}noise: found the feature {name!r} of type {kinds[name].name}; expected float features; set "
                f"swap: {{{name}: ...}} instead"
            )
    elif changes.noise and not floats:
        raise UserError(f"{prefix}noise: found no float feature among {', '.join(sorted(kinds))}; set swap instead")
    others = sorted(set(kinds) - set(floats))
    if changes.mixup and others:
        raise UserError(
            f"{prefix}mixup: found the feature {others[0]!r} of type {kinds[others[0]].name}; expected float features "
            "only; set swap instead of mixup, or remove the feature from preprocessing_fn if no network reads it"
        )


def _by_feature(value: float | dict[str, float] | None, names: Iterable[str]) -> dict[str, float]:
    if value is None or isinstance(value, dict):
        return dict(value or {})
    return dict.fromkeys(names, value)


def standard_deviations(files: Sequence[str], spec: dict) -> dict[str, np.ndarray]:
    """Returns the standard deviation of each element of the features in `spec`, over the first examples of `files`.

    Values that are not finite are left out.
    """
    sums = {name: np.zeros([3, *each.shape]) for name, each in spec.items()}  # of 1, x and x²
    offsets: dict[str, np.ndarray] = {}  # the first example's, so that the squares stay small
    for records in read(files).take(EXAMPLES_TO_MEASURE).batch(BATCH):
        for name, column in tf.io.parse_example(records, spec).items():
            values = column.numpy().astype(np.float64)
            finite = np.isfinite(values)
            offset = offsets.setdefault(name, np.where(finite[0], values[0], 0.0))
            centred = np.where(finite, values - offset, 0.0)
            sums[name] += np.stack([finite.sum(axis=0), centred.sum(axis=0), np.square(centred).sum(axis=0)])
    deviations = {}
    for name, (count, total, squares) in sums.items():
        count = np.maximum(count, 1.0)
        deviations[name] = np.sqrt(np.maximum(squares / count - np.square(total / count), 0.0))
    return deviations


def mixed_spec(label_spec, head: Head) -> dict:
    """Returns the parsing spec of what mixup adds to the examples in files of views."""
    default = [head.no_label] * math.prod(label_spec.shape)
    return {
        PARTNER: tf.io.FixedLenFeature(label_spec.shape, label_spec.dtype, default),
        SHARE: tf.io.FixedLenFeature([], tf.float32),
    }
