"""Holding out rows: how many, and which."""

from __future__ import annotations

import math

import numpy as np
from sklearn.model_selection import train_test_split


def n_held_out(reason: str, fraction: float, n_rows: int, n_classes: int = 1) -> int:
    """Return how many rows to hold out, rounded up, or raise if too few would be left to fit.

    Parameters
    ----------
    reason : str
        What the rows are held out for: the argument, with its value if it has several.
    fraction : float
        In (0, 1).
    n_rows : int
    n_classes : int
        Number of classes in the rows, each of which needs a row to fit; 1 for a regression.
    """
    n_held = math.ceil(fraction * n_rows)
    if n_rows - n_held < n_classes:
        each = f", one of each of the {n_classes} classes" if n_classes > 1 else ""
        raise ValueError(
            f"{reason} holds out {n_held} of {n_rows} sample(s), a fraction of {fraction:g}, but "
            f"must leave at least {n_classes} to fit{each}: pass more rows, or turn it off."
        )
    return n_held


def choose_held_out(
    n_rows: int, n_held: int, seed: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the rows to fit, and of the held-out rows.

    With `labels`, the proportions of the classes are preserved as far as each class has rows for
    both parts, and each class keeps at least one row to fit.

    Parameters
    ----------
    n_rows, n_held, seed : int
    labels : ndarray of shape (n_rows,), optional
        Class indices.
    """
    strata = labels if _can_stratify(labels, n_held) else None
    fitted, held = train_test_split(
        np.arange(n_rows), test_size=n_held, random_state=seed, stratify=strata
    )
    if labels is not None and len(np.unique(labels[fitted])) < len(np.unique(labels)):
        order = np.concatenate([fitted, held])  # a random order, as it ends with random rows
        kept = np.unique(labels[order], return_index=True)[1]  # the first row of each class
        others = np.delete(order, kept)
        n_others = len(others) - n_held
        fitted, held = np.concatenate([order[kept], others[:n_others]]), others[n_others:]
    return fitted, held


def _can_stratify(labels: np.ndarray | None, n_held: int) -> bool:
    """Return whether each class can have a row in both parts."""
    if labels is None:
        return False
    counts = np.unique(labels, return_counts=True)[1]
    return bool(counts.min() > 1 and len(counts) <= min(n_held, len(labels) - n_held))
