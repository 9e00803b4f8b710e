"""ClassificationPrediction: probabilities of classes and their entropies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from .._core.arrays import ArrayLike, check_positive, to_numpy
from ..likelihoods import base_of
from .base import Prediction, concatenate_chunks, plot_function
from .frame import class_names, make_frame

if TYPE_CHECKING:
    import pandas as pd


class ClassificationPrediction(Prediction):
    """The predictive mixture of a class.

    For `Categorical` likelihoods ``probs`` has a last dimension of the K classes; for `Bernoulli`
    it is the probability of 1, in the shape of y. Entropies are in nats.

    Parameters
    ----------
    distributions, original
        As for `Prediction`.
    temperature : float
        Correction of the probabilities; see `tempered`.
    """

    def __init__(
        self,
        distributions: Iterable[Distribution],
        original: ArrayLike,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(distributions, original)
        self.temperature = temperature
        self.classes: Sequence[Any] | None = None

    def tempered(self, temperature: float) -> ClassificationPrediction:
        """Return the prediction with probabilities proportional to those of the mixture ** (1 / T).

        The mixture is averaged first, because an average of well calibrated networks is itself not
        confident enough. The distribution of the weights given the class does not change, so that
        the entropies still add up, and the most probable class stays the same. Samples remain those
        of the mixture.

        Parameters
        ----------
        temperature : float
            T, positive: above 1, probabilities are less extreme. 1 is the mixture itself.

        Raises
        ------
        ValueError
            If the likelihood is not `Categorical`, or a row has several labels.

        References
        ----------
        Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", section
        4.2. Rahaman and Thiery (2021), "Uncertainty quantification and deep ensembles", for the
        order: average, then calibrate.
        """
        check_positive("temperature", temperature)
        first = next(iter(self._distributions))
        base = base_of(first)
        if not isinstance(base, torch.distributions.Categorical) or first.event_shape:
            raise ValueError(
                "`temperature` needs a Categorical likelihood with one label a row, got "
                f"{type(base).__name__} of event shape {tuple(first.event_shape)}."
            )
        return self._derived(temperature=float(temperature))

    def labelled(self, classes: Sequence[Any]) -> ClassificationPrediction:
        """Return the prediction with labels of its classes, for `to_frame`."""
        return self._derived(classes=classes)

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame with one row per predicted row, and the index of the frame predicted.

        Returns
        -------
        DataFrame
            With the columns ``label``, ``p_<class>`` for each class (for a `Bernoulli` likelihood
            ``p_1``), ``entropy`` and ``mutual_information``.
        """
        label, probs = to_numpy(self.label), to_numpy(self.probs)
        if self._is_binary:
            names = ["p_1"]
            probs = probs[..., None]
        else:
            names = class_names(self.classes, probs.shape[-1])
            label = label if self.classes is None else np.asarray(self.classes)[label]
        columns = {"label": label, **{name: probs[..., i] for i, name in enumerate(names)}}
        columns |= {"entropy": self.entropy, "mutual_information": self.mutual_information}
        return make_frame(columns, self.index)

    def plot(self, y: ArrayLike | None = None, **options: Any) -> Any:
        """Plot histograms of the entropy, by `plots.plot_uncertainty`.

        Parameters
        ----------
        y : array-like of shape (n,), optional
            Observed classes: correct and incorrect predictions are then shown separately.
        **options
            Options of this function, such as ``ax``.

        Returns
        -------
        Axes
        """
        return plot_function("plot_uncertainty")(self, y, **options)

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

    def _log_prob(self, y: Tensor) -> Tensor:
        log_prob = super()._log_prob(y)
        if self.temperature == 1:
            return log_prob
        (log_total,) = concatenate_chunks(
            ((_log(base_of(d).probs.mean(0)) / self.temperature).logsumexp(-1),)
            for d in self._distributions
        )
        return log_prob / self.temperature - log_total

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean probabilities, their entropy, and the mean over draws of each draw's entropy."""
        if self.temperature == 1:
            chunks = (
                _probs_and_entropies(base_of(d).probs, self._is_binary) for d in self._distributions
            )
        else:
            chunks = (
                _tempered_probs_and_entropies(base_of(d).probs, self.temperature)
                for d in self._distributions
            )
        probs, entropy, expected = concatenate_chunks(chunks)
        return probs, entropy, expected

    @cached_property
    def _is_binary(self) -> bool:
        return isinstance(base_of(next(iter(self._distributions))), torch.distributions.Bernoulli)


def _probs_and_entropies(by_draw: Tensor, binary: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean probabilities, their entropy, and the mean over draws of the entropy."""
    probs = by_draw.mean(0)
    return probs, _entropy(probs, binary), _entropy(by_draw, binary).mean(0)


def _tempered_probs_and_entropies(
    by_draw: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tempered mean probabilities, their entropy, and the expected entropy of a draw.

    The joint distribution of draw and class is that of the mixture, with the marginal of the class
    replaced by the tempered one. A draw then has the probability of its row of that table.
    """
    mean = by_draw.mean(0)
    probs = torch.softmax(_log(mean) / temperature, -1)
    joint = by_draw * (probs / mean.clamp(min=torch.finfo(mean.dtype).tiny))
    expected = torch.special.entr(joint).sum(-1) - torch.special.entr(joint.sum(-1))
    return probs, _entropy(probs, binary=False), expected.mean(0)


def _log(probs: Tensor) -> Tensor:
    """Return finite logarithms of probabilities, also of those that are 0 after rounding."""
    return probs.clamp(min=torch.finfo(probs.dtype).tiny).log()


def _entropy(probs: Tensor, binary: bool) -> Tensor:
    parts = torch.special.entr(probs)
    return parts + torch.special.entr(1 - probs) if binary else parts.sum(-1)
