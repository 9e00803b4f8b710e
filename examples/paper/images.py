"""Images for the experiments: MNIST, or the digits that ship with scikit-learn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

from pyrobbb import datasets

ANGLES = (15, 30, 45, 60, 90)


@dataclass(frozen=True)
class Images:
    """Images, flattened to float32 rows, and their classes."""

    x: np.ndarray
    y: np.ndarray
    x_valid: np.ndarray
    y_valid: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    x_other: np.ndarray
    """Out-of-distribution images, without classes."""


def load_mnist(folder: Path | None) -> Images:
    """Return MNIST: 50,000 training, 10,000 validation and 10,000 test images.

    Pixels are divided by 126, as in the paper.
    """
    training = load_training(folder)
    x_test, y_test = datasets.load_mnist("test", folder)
    x_other, _ = datasets.load_fashion_mnist("test", folder)
    x_test, x_other = (pixels.astype(np.float32) / 126 for pixels in (x_test, x_other))
    return Images(*training, x_test, y_test, x_other)


def load_training(folder: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return 50,000 training images and their classes, and 10,000 validation images and theirs."""
    x, y = datasets.load_mnist("train", folder)
    x = x.astype(np.float32) / 126
    order = np.random.default_rng(0).permutation(len(x))
    train, valid = order[:50_000], order[50_000:]
    return x[train], y[train], x[valid], y[valid]


def load_small() -> Images:
    """Return scikit-learn's digits of 8 x 8 pixels, and as `x_other` digits with shuffled rows."""
    x, y = load_digits(return_X_y=True)
    x = (x / 8).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    train, valid, test = order[:1000], order[1000:1200], order[1200:]
    other = x[test].reshape((-1, 8, 8))[:, np.random.default_rng(1).permutation(8)]
    other = other.reshape((-1, 64))
    return Images(x[train], y[train], x[valid], y[valid], x[test], y[test], other)


def rotated(x: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate square images; pixels from outside the image are black."""
    side = round(x.shape[1] ** 0.5)
    result = rotate(
        x.reshape((-1, side, side)), degrees, axes=(2, 1), reshape=False, order=1, mode="constant"
    )
    return result.reshape(x.shape).astype(np.float32)
