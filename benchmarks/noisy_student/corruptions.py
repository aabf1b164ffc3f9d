"""Corrupted digits in the manner of ImageNet-C: twelve corruptions at five severities.

Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", section
3: noise, blur, weather and digital corruptions, here those that make sense on 8x8 grey pixels. Brightness and contrast
are also among the noise that students are trained with; the others are not.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

SEVERITIES = 5


def _gaussian_noise(images, chance, severity):
    return images + chance.normal(scale=(0.08, 0.12, 0.18, 0.26, 0.38)[severity], size=images.shape)


def _shot_noise(images, chance, severity):
    photons = (60, 25, 12, 5, 3)[severity]
    return chance.poisson(images * photons) / photons


def _impulse_noise(images, chance, severity):
    hit = chance.random(images.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[severity]
    return np.where(hit, chance.integers(0, 2, images.shape), images)


def _speckle_noise(images, chance, severity):
    return images * (1 + chance.normal(scale=(0.15, 0.2, 0.35, 0.45, 0.6)[severity], size=images.shape))


def _gaussian_blur(images, chance, severity):
    return ndimage.gaussian_filter(images, (0, *2 * ((0.4, 0.6, 0.7, 0.8, 1.0)[severity],)))


def _motion_blur(images, chance, severity):
    """Each image is smeared along x or y."""
    length = (1.5, 2, 2.5, 3, 4)[severity]
    whole = int(length)
    kernel = np.append(np.ones(whole), length - whole) / length
    along_x = ndimage.convolve1d(images, kernel, axis=2, mode="nearest")
    along_y = ndimage.convolve1d(images, kernel, axis=1, mode="nearest")
    return np.where(chance.random(len(images))[:, None, None] < 0.5, along_x, along_y)


def _fog(images, chance, severity):
    """A bright haze that is thicker in some places."""
    thickness = (0.3, 0.5, 0.7, 0.9, 1.1)[severity]
    haze = ndimage.zoom(chance.random((len(images), 3, 3)), (1, 8 / 3, 8 / 3), order=1)
    return (images + thickness * haze) / (1 + thickness)


def _frost(images, chance, severity):
    """Bright streaks cover single rows or columns."""
    result = images.copy()
    for number in range(len(images)):
        for _ in range(1 + severity):
            line, place = chance.integers(0, 2), chance.integers(0, 8)
            streak = result[number, place] if line else result[number, :, place]
            streak[:] = 0.4 * streak + 0.6 * chance.random(8)
    return result


def _brightness(images, chance, severity):
    return images + (0.1, 0.2, 0.3, 0.4, 0.5)[severity]


def _contrast(images, chance, severity):
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + (0.5, 0.4, 0.3, 0.2, 0.12)[severity] * (images - mean)


def _elastic(images, chance, severity):
    """Pixels are moved by a smooth random field."""
    strength = (0.5, 0.8, 1.0, 1.3, 1.6)[severity]
    places = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"))
    result = np.empty_like(images)
    for number, image in enumerate(images):
        field = ndimage.gaussian_filter(chance.normal(size=(2, 8, 8)), (0, 1.5, 1.5))
        field *= strength / np.abs(field).max()
        result[number] = ndimage.map_coordinates(image, places + field, order=1, mode="constant")
    return result


def _pixelate(images, chance, severity):
    """The images are made smaller and large again."""
    side = (7, 6, 5.5, 5, 4)[severity]
    small = ndimage.zoom(images, (1, side / 8, side / 8), order=1)
    return ndimage.zoom(small, (1, 8 / small.shape[1], 8 / small.shape[2]), order=0)


CORRUPTIONS: dict[str, Callable] = {
    "gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "speckle noise": _speckle_noise,
    "gaussian blur": _gaussian_blur,
    "motion blur": _motion_blur,
    "fog": _fog,
    "frost": _frost,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic": _elastic,
    "pixelate": _pixelate,
}


def corrupted(images: np.ndarray, name: str, severity: int, seed: int = 1) -> np.ndarray:
    """Returns the corrupted images, float32 [images, 8, 8] in 0..1; severity 0 to 4."""
    chance = np.random.default_rng([seed, sorted(CORRUPTIONS).index(name), severity])
    found = CORRUPTIONS[name](images.astype(np.float64), chance, severity)
    return np.clip(found, 0.0, 1.0).astype(np.float32)


def mean_corruption_error(errors: dict[str, list[float]], reference: dict[str, list[float]]) -> float:
    """Returns the mean over corruptions of a model's error, summed over severities, over that of the reference model.

    Section 3.2 of the paper, where the reference is AlexNet; 1.0 is the reference itself.

    Args:
      errors: {corruption: [error at each severity]}, shares of 1.
      reference: the same of the reference model.
    """
    return float(np.mean([sum(errors[name]) / sum(reference[name]) for name in errors]))
