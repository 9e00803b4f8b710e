"""A bandit of mushrooms: to eat, or not to eat."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.arrays import ArrayLike, as_tensor, check_count
from .._core.random_state import as_seed

PASS, EAT = 0, 1
GOOD, BAD = 5.0, -35.0
"""Rewards of eating: a poisonous mushroom gives either, with probability 1/2 each."""


class MushroomBandit:
    """One mushroom after the other, drawn at random: 0 leaves it, 1 eats it.

    To eat an edible one is rewarded by 5, a poisonous one by -35 or 5, with probability 1/2 each;
    to leave it, by 0. The interface is gymnasium's, which is not needed. No episode ever ends.

    Parameters
    ----------
    contexts : array-like of shape (n, n_features)
        What can be seen of each mushroom.
    is_edible : array-like of shape (n,)
        1 or True where it is edible, else 0.
    seed : int, optional
        Makes mushrooms and rewards repeatable.

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
                f"the shape {tuple(rows.shape)}."
            )
        if edible.shape != rows.shape[:1] or not bool(((edible == 0) | (edible == 1)).all()):
            raise ValueError(
                f"`is_edible` must hold 0 or 1 for each of the {len(rows)} rows of `contexts`, got "
                f"the shape {tuple(edible.shape)}"
                + (f" and the value {edible.max()}." if edible.shape == rows.shape[:1] else ".")
            )
        self._contexts = rows.float().numpy()
        self._is_edible = edible.bool().numpy()
        self.n_features = self._contexts.shape[1]
        self._rng = np.random.default_rng(as_seed(seed))
        self._row: int | None = None

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Show a first mushroom.

        Parameters
        ----------
        seed : int, optional
            Begins the sequence of mushrooms and rewards anew, from this seed.

        Returns
        -------
        context : ndarray of shape (n_features,)
        info : dict
            Empty.
        """
        if seed is not None:
            self._rng = np.random.default_rng(as_seed(seed))
        return self._show(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Leave the mushroom or eat it, and show the next one.

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
            ``"regret"``, what one who knows would have got (5 of an edible one, else 0) less the
            reward: below 0 where poison did no harm; and ``"is_edible"``, of the mushroom left or
            eaten.

        Raises
        ------
        RuntimeError
            Before `reset`.
        ValueError
            If there is no such action.
        """
        if self._row is None:
            raise RuntimeError("There is no mushroom yet: call reset() before step().")
        check_count("action", action, least=0)
        if action >= self.n_actions:
            raise ValueError(f"`action` must be 0 (leave it) or 1 (eat it), got {action}.")
        is_edible = bool(self._is_edible[self._row])
        is_harmless = is_edible or bool(self._rng.random() < 0.5)
        reward = 0.0 if action == PASS else GOOD if is_harmless else BAD
        best = GOOD if is_edible else 0.0
        info = {"regret": best - reward, "is_edible": is_edible}
        return self._show(), reward, False, False, info

    def _show(self) -> np.ndarray:
        self._row = int(self._rng.integers(len(self._contexts)))
        return self._contexts[self._row].copy()
