"""ClassificationPrediction: probabilities of classes and their entropies."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..likelihoods import base_of
from .base import Prediction, concatenate_chunks


class ClassificationPrediction(Prediction):
    """The predictive mixture of a class.

    For `Categorical` likelihoods ``probs`` has a last dimension of the K classes; for `Bernoulli`
    it is the probability of 1, in the shape of y. Entropies are in nats.
    """

    @property
    def probs(self) -> Any:
        """Probability of each class, shape (n, K), or of y = 1, shape (n, ...)."""
        return self._out(self._parts[0])

    @property
    def label(self) -> Any:
        """The most probable class, integers of shape (n, ...)."""
        probs = self._parts[0]
        return self._out((probs > 0.5).long() if self._is_binary else probs.argmax(-1))

    @property
    def entropy(self) -> Any:
        """Entropy of the predictive distribution: the total uncertainty, shape (n, ...)."""
        return self._out(self._parts[1])

    @property
    def expected_entropy(self) -> Any:
        """Aleatoric uncertainty: mean over draws of the entropy, shape (n, ...)."""
        return self._out(self._parts[2])

    @property
    def mutual_information(self) -> Any:
        """Epistemic uncertainty: mutual information of y and the weights, shape (n, ...).

        ``entropy - expected_entropy``, at least 0.
        """
        return self._out((self._parts[1] - self._parts[2]).clamp(min=0))

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean probabilities, their entropy, and the mean over draws of each draw's entropy."""
        probs, entropy, expected = concatenate_chunks(
            _probs_and_entropies(base_of(d).probs, self._is_binary) for d in self._distributions
        )
        return probs, entropy, expected

    @cached_property
    def _is_binary(self) -> bool:
        return isinstance(base_of(next(iter(self._distributions))), torch.distributions.Bernoulli)


def _probs_and_entropies(by_draw: Tensor, binary: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean probabilities, their entropy, and the mean over draws of the entropy."""
    probs = by_draw.mean(0)
    return probs, _entropy(probs, binary), _entropy(by_draw, binary).mean(0)


def _entropy(probs: Tensor, binary: bool) -> Tensor:
    parts = torch.special.entr(probs)
    return parts + torch.special.entr(1 - probs) if binary else parts.sum(-1)
