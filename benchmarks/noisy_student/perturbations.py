"""Slowly changing digits in the manner of ImageNet-P: how often does a model change its mind?

Hendrycks & Dietterich 2019, section 3.3: sequences of frames that differ by little. The flip probability is the share
of neighbouring frames with different predictions; for noise, each frame is compared with the first.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

FRAMES = 11


def _moved(images, chance, frame):
    """Half a pixel in all, along x."""
    return ndimage.shift(images, (0, 0, 0.05 * frame), order=1)


def _rotated(images, chance, frame):
    """Ten degrees in all."""
    return ndimage.rotate(images, 1.0 * frame, axes=(2, 1), reshape=False, order=1)


def _sheared(images, chance, frame):
    """By 0.2 in all."""
    slant = 0.02 * frame
    return ndimage.affine_transform(images, [[1, 0, 0], [0, 1, 0], [0, slant, 1]], [0, 0, -3.5 * slant], order=1)


def _scaled(images, chance, frame):
    """A fifth smaller in all."""
    factor = 1 + 0.02 * frame
    return ndimage.affine_transform(images, [1, factor, factor], [0, *2 * (3.5 * (1 - factor),)], order=1)


def _brighter(images, chance, frame):
    return images + 0.02 * frame


def _blurred(images, chance, frame):
    return ndimage.gaussian_filter(images, (0, 0.06 * frame, 0.06 * frame))


def _noisy(images, chance, frame):
    """Each frame has noise of its own."""
    return images + chance.normal(scale=0.08, size=images.shape) * (frame > 0)


PERTURBATIONS: dict[str, Callable] = {
    "translate": _moved,
    "rotate": _rotated,
    "tilt": _sheared,
    "scale": _scaled,
    "brightness": _brighter,
    "blur": _blurred,
    "noise": _noisy,
}
OF_NOISE = ("noise",)


def sequence(images: np.ndarray, name: str, seed: int = 1) -> np.ndarray:
    """Returns FRAMES frames of each image, float32 [frames, images, 8, 8] in 0..1; the first is the image itself."""
    chance = np.random.default_rng([seed, sorted(PERTURBATIONS).index(name)])
    frames = [PERTURBATIONS[name](images.astype(np.float64), chance, frame) for frame in range(FRAMES)]
    return np.clip(np.stack(frames), 0.0, 1.0).astype(np.float32)


def flip_probability(predictions: np.ndarray, of_noise: bool) -> float:
    """Returns the share of predictions, int [frames, images], that differ from the frame before (noise: the first)."""
    before = predictions[:1] if of_noise else predictions[:-1]
    return float((predictions[1:] != before).mean())
