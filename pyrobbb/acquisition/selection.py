"""Selection of rows from a pool that may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import torch

from .._core.arrays import as_count
from .._core.messages import is_one_of, not_one_of
from .._core.random_state import as_seed, child_seed
from ..prediction import Prediction
from ..prediction.drawn_distributions import WORKING_MEMORY
from ..streams import chunks_of, plan_chunks
from .draws import is_classification, prediction_of, probabilities
from .joint_information import greedy_batch, information_about
from .marginal_information import bald, variance

Strategy = Literal["bald", "batch_bald", "epig", "variance", "random"]
STRATEGIES = get_args(Strategy)
N_CONFIGURATIONS = 10_000


def select(
    model: Any,
    pool: Any,
    n: int,
    strategy: Strategy | Callable[[Prediction], Any] = "bald",
    *,
    target: Any = None,
    n_candidates: int = 1000,
    n_draws: int = 200,
    seed: int | None = None,
    rows: int | None = None,
    max_memory: int = WORKING_MEMORY,
) -> np.ndarray:
    """Choose rows of a pool to label next.

    The pool is read once, chunk by chunk, and only scores are kept. Rows that are already labelled
    are not left out: pass the others only.

    Parameters
    ----------
    model : Posterior or estimator
    pool : array-like, numpy.memmap, streams.Parquet, or iterable of arrays of shape (m, ...)
        Rows without labels, as for `Posterior.predict_chunks`.
    n : int
        Number of rows to choose.
    strategy : str or callable
        ``"bald"``, ``"variance"`` and ``"epig"`` choose the rows with the highest scores,
        ``"batch_bald"`` a batch that is informative as a whole, and ``"random"`` any rows. Or a
        function of a prediction that returns a score for each row.
    target : array-like of shape (n_targets, ...), optional
        Required by ``"epig"``: rows that the model is meant for.
    n_candidates : int
        ``"batch_bald"`` chooses from this many rows, those with the highest scores of ``"bald"``.
    n_draws, seed
        As for `Posterior.predict`: all rows are scored with the same draws.
    rows, max_memory
        As for `Posterior.predict_chunks`.

    Returns
    -------
    ndarray of shape (n,)
        Positions in the pool: by falling score, or in the order of choice. Of equal scores, the
        first row comes first.

    Raises
    ------
    ValueError
        If the pool has fewer than n rows, or an argument is invalid.
    """
    n = as_count("n", n)
    n_candidates = as_count("n_candidates", n_candidates)
    if not callable(strategy) and not is_one_of(strategy, STRATEGIES):
        or_else = " or a function of a prediction"
        raise ValueError(not_one_of("strategy", strategy, STRATEGIES, or_else=or_else))
    if (strategy == "epig") != (target is not None):
        raise ValueError('`target` is for strategy="epig", which needs it: pass both or neither.')
    if rows is not None:
        rows = as_count("rows", rows)
    seed = as_seed(seed)
    score = _score_of(model, strategy, target, n_draws, seed)
    is_batch = strategy == "batch_bald"
    best = _Best(max(n, n_candidates) if is_batch else n)
    for start, prediction in _predictions(model, pool, n_draws, seed, rows, max_memory):
        if is_batch and not is_classification(prediction):
            raise ValueError('`strategy` "batch_bald" needs classes, got a regression: use "bald".')
        scores = np.asarray(score(prediction), dtype=float)
        best.add(start, scores, _probabilities_at(prediction) if is_batch else None)
    if best.n_seen < n:
        raise ValueError(f"`n` must be at most the {best.n_seen} rows of the pool, got {n}.")
    if not is_batch:
        return best.index
    probs = torch.stack(best.payload, 1)
    chosen, _ = greedy_batch(probs, n, N_CONFIGURATIONS, child_seed(seed, 1))
    return best.index[chosen]


class _Best:
    """The rows with the highest scores so far, with what is kept of them.

    Parameters
    ----------
    size : int
        Number of rows to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.index = np.empty(0, dtype=np.int64)
        self._scores = np.empty(0)
        self.payload: list[Any] = []
        self.n_seen = 0

    def add(
        self, start: int, scores: np.ndarray, payload: Callable[[np.ndarray], list[Any]] | None
    ) -> None:
        """Add consecutive rows, whose payload is computed for those that are kept."""
        if scores.ndim != 1 or np.isnan(scores).any():
            raise ValueError(
                "`strategy` must return a number for each row, and no NaN, got shape "
                f"{scores.shape}."
            )
        new = np.argsort(-scores, kind="stable")[: self._size]
        self.n_seen = start + len(scores)
        kept = np.argsort(-np.concatenate([self._scores, scores[new]]), kind="stable")[: self._size]
        if payload is not None:
            both = [*self.payload, *payload(new)]
            self.payload = [both[i] for i in kept]
        self.index = np.concatenate([self.index, start + new])[kept]
        self._scores = np.concatenate([self._scores, scores[new]])[kept]


def _predictions(
    model: Any, pool: Any, n_draws: int, seed: int, rows: int | None, max_memory: int
) -> Iterator[tuple[int, Prediction]]:
    """Yield the predictions of consecutive chunks, with the number of rows before them."""
    if hasattr(model, "predict_chunks"):
        predictions = model.predict_chunks(pool, n_draws, seed, rows=rows, max_memory=max_memory)
    else:
        rows, _ = plan_chunks(pool, rows, max_memory)
        predictions = (
            prediction_of(model, chunk, n_draws, seed) for chunk in chunks_of(pool, rows)
        )
    start = 0
    for prediction in predictions:
        yield start, prediction
        start += len(prediction)


def _score_of(
    model: Any, strategy: Any, target: Any, n_draws: int, seed: int
) -> Callable[[Prediction], Any]:
    if callable(strategy):
        score: Callable[[Prediction], Any] = strategy
        return score
    if strategy == "epig":
        of_targets = prediction_of(model, target, n_draws, seed)
        return lambda prediction: information_about(prediction, of_targets)
    if strategy == "random":
        random = np.random.default_rng(seed)
        return lambda prediction: random.random(len(prediction))
    return variance if strategy == "variance" else bald


def _probabilities_at(prediction: Prediction) -> Callable[[np.ndarray], list[Any]]:
    def at(index: np.ndarray) -> list[Any]:
        found: dict[int, Any] = {}
        start = 0
        for chunk in prediction.chunks():
            probs = probabilities(chunk)
            for i in index[(index >= start) & (index < start + probs.shape[1])].tolist():
                found[i] = probs[:, i - start].clone()
            start += probs.shape[1]
        return [found[i] for i in index.tolist()]

    return at
