"""Independent calculations in float64, and logits to try them on."""

import numpy as np


def softmax(z):
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def logits(seed, rows=6, classes=5):
    return np.random.RandomState(seed).normal(scale=3, size=(rows, classes)).astype(np.float32)
