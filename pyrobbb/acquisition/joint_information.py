"""Acquisition functions of several rows: joint information of a batch, and about target rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import as_count
from .._core.random_state import as_seed
from ..prediction import Prediction
from .draws import entropy, is_classification, moments, prediction_of, probabilities

MAX_ELEMENTS = 2**24
"""Numbers in memory at a time."""


def batch_bald(
    model: Any,
    x: Any = None,
    n: int = 10,
    *,
    n_configurations: int = 10_000,
    n_draws: int = 200,
    seed: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows, one after another, whose labels together are most informative about the weights.

    Rows with a high score by themselves may all carry the same information. The joint entropy of
    the labels is a sum over all their configurations while these are at most `n_configurations`,
    and an estimate from as many drawn ones after that.

    Parameters
    ----------
    model : Prediction, Posterior or estimator
        Of classes.
    x : array-like of shape (n_rows, ...), optional
        Rows, for a posterior or an estimator.
    n : int
        Number of rows to choose.
    n_configurations : int
        Configurations of the labels of a batch.
    n_draws, seed
        As for `Posterior.predict`; the seed is also that of drawn configurations.

    Returns
    -------
    index : ndarray of shape (n,)
        The rows, in the order in which they were chosen.
    information : ndarray of shape (n,)
        Mutual information of the weights and the labels of the first 1, 2, ..., n rows, in nats.

    References
    ----------
    Kirsch, van Amersfoort and Gal (2019), "BatchBALD: Efficient and diverse batch acquisition for
    deep Bayesian active learning", equations 7 to 14.
    """
    prediction = prediction_of(model, x, n_draws, seed)
    if not is_classification(prediction):
        raise ValueError("`batch_bald` needs classes, got a regression: use `bald` or `epig`.")
    probs = torch.cat([probabilities(chunk) for chunk in prediction.chunks()], 1)
    n = as_count("n", n)
    n_configurations = as_count("n_configurations", n_configurations)
    if n > probs.shape[1]:
        raise ValueError(f"`n` must be at most the {probs.shape[1]} rows, got {n}.")
    return greedy_batch(probs, n, n_configurations, as_seed(seed))


def greedy_batch(
    probs: Tensor, n: int, n_configurations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows as `batch_bald` does.

    Parameters
    ----------
    probs : Tensor of shape (n_draws, n_rows, K)
    n, n_configurations, seed : int
    """
    n_draws, _, n_classes = probs.shape
    generator = torch.Generator(probs.device).manual_seed(seed)
    conditional = entropy(probs).mean(0)  # of the label of each row, given the weights
    # Probabilities of the configurations of the chosen rows under each draw; their weights are 1
    # for all configurations, and 1 / (M p) for M that were drawn with probability p.
    joint = probs.new_ones((1, n_draws))
    weight = probs.new_ones(1)
    chosen: list[int] = []
    information: list[float] = []
    given_weights = 0.0
    for _ in range(n):
        scores = _joint_entropies(joint, weight, probs) - conditional - given_weights
        scores[chosen] = -math.inf
        best = int(scores.argmax())
        information.append(max(float(scores[best]), 0.0))
        chosen.append(best)
        given_weights += float(conditional[best])
        if len(joint) * n_classes <= n_configurations:
            of_best = probs[:, best].T  # (K, n_draws)
            joint = (joint[:, None] * of_best).reshape(-1, n_draws)
            weight = probs.new_ones(len(joint))
        else:
            joint = _drawn_configurations(probs[:, chosen], n_configurations, generator)
            weight = 1 / (len(joint) * joint.mean(1))
    return np.array(chosen), np.array(information)


def _joint_entropies(joint: Tensor, weight: Tensor, probs: Tensor) -> Tensor:
    """Return the joint entropy of the labels of the chosen rows and of each further row."""
    n_draws, _, n_classes = probs.shape
    size = max(MAX_ELEMENTS // (len(joint) * n_classes), 1)
    parts = []
    for part in probs.split(size, 1):
        together = joint @ part.reshape(n_draws, -1) / n_draws
        terms = weight @ torch.special.entr(together)
        parts.append(terms.reshape(-1, n_classes).sum(-1))
    return torch.cat(parts)


def _drawn_configurations(probs: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw configurations of labels; return their probability under each draw, (size, n_draws)."""
    n_draws, n_rows, _ = probs.shape
    draw = torch.randint(n_draws, (size,), generator=generator, device=probs.device)
    joint = probs.new_ones((size, n_draws))
    for i in range(n_rows):
        label = torch.multinomial(probs[draw, i], 1, generator=generator)[:, 0]
        joint *= probs[:, i, label].T
    return joint


def epig(
    model: Any,
    x: Any = None,
    target: Any = None,
    *,
    n_draws: int = 200,
    seed: int | None = None,
) -> np.ndarray:
    """Return the expected information of each row's label about the labels of target rows.

    Information about weights that do not matter for the target rows does not count. For a
    regression, the predictive distribution of both labels is taken as normal with its covariance.

    Parameters
    ----------
    model : Prediction, Posterior or estimator
    x : array-like of shape (n, ...), optional
        Rows, for a posterior or an estimator.
    target : array-like of shape (n_targets, ...), or Prediction
        Rows of the distribution for which the model is meant, such as a sample of the pool; for a
        prediction, their prediction with the same draws.
    n_draws, seed
        As for `Posterior.predict`.

    Returns
    -------
    ndarray of shape (n,)
        Mutual information of the two labels, averaged over the targets, in nats.

    References
    ----------
    Bickford Smith, Kirsch, Farquhar, Gal, Foster and Rainforth (2023), "Prediction-oriented
    Bayesian active learning", equation 5.
    """
    if target is None:
        raise ValueError("`target` is required, got None: pass rows that the model is meant for.")
    seed = as_seed(seed)
    prediction = prediction_of(model, x, n_draws, seed)
    if isinstance(target, Prediction):
        of_targets = target
    else:
        of_targets = prediction_of(model, target, n_draws, seed)
    return information_about(prediction, of_targets)


def information_about(prediction: Prediction, target: Prediction) -> np.ndarray:
    """Return the scores of `epig` for predictions with the same draws."""
    is_class = is_classification(prediction)
    if is_class != is_classification(target):
        raise ValueError("`target` must be a prediction of the same kind as that of the rows.")
    of_chunk: Callable[..., Any] = probabilities if is_class else moments
    parts = [of_chunk(chunk) for chunk in target.chunks()]
    targets: Any
    if is_class:
        targets = torch.cat(parts, 1)
    else:
        targets = tuple(torch.cat(each, 1) for each in zip(*parts, strict=True))
    n_draws = len(targets) if is_class else len(targets[0])
    scores = []
    for chunk in prediction.chunks():
        if chunk.batch_shape[0] != n_draws:
            raise ValueError(
                f"`target` must have the draws of the prediction, {chunk.batch_shape[0]}, got "
                f"{n_draws}."
            )
        score: Callable[..., Tensor] = _of_classes if is_class else _of_numbers
        scores.append(score(of_chunk(chunk), targets).cpu().numpy())
    return np.concatenate(scores)


def _of_classes(probs: Tensor, targets: Tensor) -> Tensor:
    n_draws, n_targets, n_classes = targets.shape
    of_targets = entropy(targets.mean(0)).mean()
    flat = targets.reshape(n_draws, -1)
    parts = []
    for part in probs.split(max(MAX_ELEMENTS // (n_classes * flat.shape[1]), 1), 1):
        together = part.reshape(n_draws, -1).T @ flat / n_draws  # (rows * K, targets * K)
        joint = torch.special.entr(together).reshape(part.shape[1], n_classes, -1).sum((1, 2))
        parts.append(entropy(part.mean(0)) + of_targets - joint / n_targets)
    return torch.cat(parts).clamp(min=0)


def _of_numbers(rows: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    (means, variances), (of_targets, noise) = rows, targets
    if means.shape[2] > 1 or of_targets.shape[2] > 1:
        raise ValueError(
            f"`epig` of a regression needs y of one column, got {means.shape[2]}: use `bald`."
        )
    means, of_targets = means[..., 0], of_targets[..., 0]
    centred, about = means - means.mean(0), of_targets - of_targets.mean(0)
    total = centred.square().mean(0) + variances[..., 0].mean(0)
    total_of_targets = about.square().mean(0) + noise[..., 0].mean(0)
    parts = []
    for part, spread in zip(
        centred.split(size := max(MAX_ELEMENTS // about.shape[1], 1), 1),
        total.split(size),
        strict=True,
    ):
        covariance = part.T @ about / len(about)
        squared = covariance.square() / (spread[:, None] * total_of_targets)
        parts.append(-0.5 * torch.log1p(-squared).mean(1))
    return torch.cat(parts)
