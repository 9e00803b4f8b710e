"""MushroomBandit: the environment of Blundell et al. (2015), section 5.3."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.arrays import ArrayLike, as_count, as_tensor
from .._core.random_state import as_seed

PASS, EAT = 0, 1
GOOD, BAD = 5.0, -35.0
"""Rewards of eating. A poisonous mushroom gives either, with probability 1/2 each."""


class MushroomBandit:
    """Bandit of mushrooms drawn at random: action 0 leaves a mushroom, action 1 eats it.

    The reward of eating is 5 for an edible mushroom, and -35 or 5 with probability 1/2 each for a
    poisonous one; the reward of leaving it is 0. The interface is that of gymnasium, which is not
    required. Episodes do not end.

    Parameters
    ----------
    contexts : array-like of shape (n, n_features)
        Visible properties of each mushroom.
    is_edible : array-like of shape (n,)
        1 or True if it is edible, else 0.
    seed : int, optional
        Makes mushrooms and rewards reproducible.

    Attributes
    ----------
    n_features, n_actions : int

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    References
    ----------
    Guez (2015), "Sample-based Search Methods for Bayes-Adaptive Planning"; Blundell et al. (2015),
    section 5.3.

    Examples
    --------
    >>> context, _ = environment.reset(seed=0)
    >>> next_context, reward, _, _, info = environment.step(1)
    """

    n_actions = 2

    def __init__(
        self, contexts: ArrayLike, is_edible: ArrayLike, *, seed: int | None = None
    ) -> None:
        rows, edible = as_tensor("contexts", contexts), as_tensor("is_edible", is_edible)
        if rows.dim() != 2:
            raise ValueError(
                "`contexts` must have a row for each mushroom and a column for each feature, got "
                f"shape {tuple(rows.shape)}."
            )
        wrong = edible[(edible != 0) & (edible != 1)]
        if edible.shape != rows.shape[:1] or len(wrong):
            raise ValueError(
                f"`is_edible` must hold 0 or 1 for each of the {len(rows)} rows of `contexts`, got "
                f"shape {tuple(edible.shape)}"
                + (f" and the value {wrong[0]}." if len(wrong) else ".")
            )
        self._contexts = rows.float().numpy()
        self._is_edible = edible.bool().numpy()
        self.n_features = self._contexts.shape[1]
        self._rng = np.random.default_rng(as_seed(seed))
        self._row: int | None = None

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the first mushroom.

        Parameters
        ----------
        seed : int, optional
            Seed to restart the sequence of mushrooms and rewards from.

        Returns
        -------
        context : ndarray of shape (n_features,)
        info : dict
            Empty.
        """
        if seed is not None:
            self._rng = np.random.default_rng(as_seed(seed))
        return self._draw_mushroom(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Leave or eat the mushroom, and return the next one.

        Parameters
        ----------
        action : int
            0 or 1.

        Returns
        -------
        context : ndarray of shape (n_features,)
            The next mushroom.
        reward : float
        terminated, truncated : bool
            False.
        info : dict
            ``"regret"``: the expected reward of the best action (5 for an edible mushroom, else 0)
            minus the reward; negative if a poisonous mushroom was harmless. ``"is_edible"``:
            whether the mushroom left or eaten was edible.

        Raises
        ------
        RuntimeError
            If `reset` has not been called yet.
        ValueError
            If the action is neither 0 nor 1.
        """
        if self._row is None:
            raise RuntimeError("There is no mushroom yet: call reset() before step().")
        action = as_count("action", action, least=0)
        if action >= self.n_actions:
            raise ValueError(f"`action` must be 0 (leave it) or 1 (eat it), got {action}.")
        is_edible = bool(self._is_edible[self._row])
        is_harmless = is_edible or bool(self._rng.random() < 0.5)
        reward = 0.0 if action == PASS else GOOD if is_harmless else BAD
        best = GOOD if is_edible else 0.0
        info = {"regret": best - reward, "is_edible": is_edible}
        return self._draw_mushroom(), reward, False, False, info

    def _draw_mushroom(self) -> np.ndarray:
        self._row = int(self._rng.integers(len(self._contexts)))
        return self._contexts[self._row].copy()
