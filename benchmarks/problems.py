"""The problems that are benchmarked: their nets, batches and data."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

Task = Literal["regression", "classification"]

N_FEATURES_BEHIND = 20
"""Made images are a smooth function of so few numbers: they can be learned, as real ones can."""


@dataclass(frozen=True)
class Layer:
    """Where every library starts a layer: PyTorch's own start, and narrow posteriors around it.

    Attributes
    ----------
    weight : ndarray of shape (n_out, n_in)
    bias : ndarray of shape (n_out,)
    weight_scale, bias_scale : float
        Starting standard deviations: those of `pyrobbb.MeanFieldGuide`.
    """

    weight: np.ndarray
    bias: np.ndarray
    weight_scale: float
    bias_scale: float


@dataclass(frozen=True)
class Problem:
    """A multilayer perceptron with ReLU units, and data to fit it to.

    Attributes
    ----------
    widths : tuple of int
        Units of each layer, inputs first.
    task : str
        Regression has normal noise of a known scale, classification a softmax.
    batch_size : int
    n_data : int
        Rows that the data set is said to have, at whose scale a loss is.
    x : ndarray of shape (n, n_in), float32
        There may be fewer rows than `n_data`: what a step costs depends on the batch only.
    y : ndarray of shape (n, 1), float32, or (n,), int64
    prior_scale, noise_scale : float
        Standard deviations.
    """

    widths: tuple[int, ...]
    task: Task
    batch_size: int
    n_data: int
    x: np.ndarray
    y: np.ndarray
    prior_scale: float = 1.0
    noise_scale: float = 0.1

    @property
    def steps_per_epoch(self) -> int:
        """Batches that the rows make, the last of which may be smaller."""
        return math.ceil(len(self.x) / self.batch_size)

    def start(self, seed: int = 0) -> list[Layer]:
        """Return the layers that every library starts from."""
        rng = np.random.default_rng(seed)
        layers = []
        for n_in, n_out in itertools.pairwise(self.widths):
            bound = 1 / math.sqrt(n_in)
            weight, bias = (
                rng.uniform(-bound, bound, (n_out, n_in)),
                rng.uniform(-bound, bound, n_out),
            )
            layers.append(
                Layer(weight.astype(np.float32), bias.astype(np.float32), 0.1 * bound, 0.1)
            )
        return layers

    def batches(self, n_epochs: int, seed: int = 0) -> np.ndarray:
        """Shuffle the rows of each epoch into batches; the last is filled up from the first.

        Returns
        -------
        ndarray of shape (n_epochs * steps_per_epoch, batch_size)
        """
        rng = np.random.default_rng(seed)
        size = self.steps_per_epoch * self.batch_size
        orders = [np.resize(rng.permutation(len(self.x)), size) for _ in range(n_epochs)]
        return np.concatenate(orders).reshape(-1, self.batch_size)


@dataclass(frozen=True)
class Size:
    """A problem before its data are made.

    Attributes
    ----------
    n_timed : int
        Rows that are held when a step is timed.
    """

    title: str
    widths: tuple[int, ...]
    task: Task
    batch_size: int
    n_data: int
    n_timed: int


SIZES = {
    "small": Size("13-50-1, batch 100", (13, 50, 1), "regression", 100, 455, 455),
    "medium": Size(
        "784-400-400-10, batch 128", (784, 400, 400, 10), "classification", 128, 60_000, 16_384
    ),
    "large": Size(
        "784-1200-1200-10, batch 128", (784, 1200, 1200, 10), "classification", 128, 60_000, 8_192
    ),
}


def timed_problem(size: Size, data: Path | None = None) -> Problem:
    """Make the problem of a size with the rows that its steps are timed on.

    Parameters
    ----------
    size : Size
    data : path, optional
        A folder with MNIST, for classification; without one, data are made.
    """
    if size.task == "regression":
        x, y = made_regression(size.n_timed, size.widths[0])
    elif data is None:
        x, y = made_images(size.n_timed)
    else:
        x, y = read_images(data, "train", size.n_timed)
    return Problem(size.widths, size.task, size.batch_size, size.n_data, x, y)


def read_images(
    folder: Path, part: Literal["train", "test"], n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read the first images of MNIST, pixels in [0, 1]."""
    from pyrobbb.datasets import load_mnist

    x, y = load_mnist(part, folder)
    return x[:n].astype(np.float32) / 255, y[:n]


def made_regression(n: int, n_in: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make rows of a smooth function of a few directions, with noise of scale 0.1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_in))
    directions = rng.normal(size=(n_in, 2)) / math.sqrt(n_in)
    first, second = (x @ directions).T
    y = np.sin(2 * first) + 0.5 * second + 0.1 * rng.normal(size=n)
    return x.astype(np.float32), y[:, None].astype(np.float32)


def made_images(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Make rows of 784 numbers in [0, 1], labelled by a random net that knows what made them."""
    teacher = np.random.default_rng(0)  # the same for all rows
    to_pixels = teacher.normal(size=(N_FEATURES_BEHIND, 784)) / math.sqrt(N_FEATURES_BEHIND)
    to_hidden = teacher.normal(size=(N_FEATURES_BEHIND, 64)) / math.sqrt(N_FEATURES_BEHIND)
    to_logits = teacher.normal(size=(64, 10))
    rng = np.random.default_rng(seed)
    behind = rng.normal(size=(n, N_FEATURES_BEHIND))
    pixels = 1 / (1 + np.exp(-2 * (behind @ to_pixels) + 1))
    pixels += 0.05 * rng.normal(size=pixels.shape)
    logits = np.maximum(behind @ to_hidden, 0) @ to_logits
    return pixels.clip(0, 1).astype(np.float32), logits.argmax(-1)


def first_rows(problem: Problem, n: int) -> Problem:
    """Keep the first rows, as if there were no others."""
    return replace(problem, n_data=n, x=problem.x[:n], y=problem.y[:n])
