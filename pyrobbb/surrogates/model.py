"""BayesianNetworkModel: a posterior as a model of BoTorch, an ensemble of draws of the weights."""

from __future__ import annotations

from typing import Any, NoReturn, Self

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.models.ensemble import EnsembleModel
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.posteriors.ensemble import EnsemblePosterior
from torch import Tensor, nn

from .drawn_outcomes import DrawnOutcomes

NO_CONDITIONING = (
    "draws of weights cannot be conditioned on further rows: fit them, by pyrobbb.update, "
    "fit(..., start=posterior) or an estimator, and call to_botorch again."
)


class BayesianNetworkModel(EnsembleModel):
    """A posterior over the weights of a network, as a model of BoTorch.

    The members of the ensemble are draws of the weights, the same in each call, so that an
    acquisition function is deterministic. A member's value at X is the mean of y given its weights.

    Parameters
    ----------
    outcomes : DrawnOutcomes
    n_inputs, n_outputs : int
        Columns of X, after an input transform, and of y.
    input_transform : InputTransform, optional
        From X to the inputs of the network.
    outcome_transform : OutcomeTransform, optional
        From y to the targets of the network; trained.
    """

    def __init__(
        self,
        outcomes: DrawnOutcomes,
        n_inputs: int,
        n_outputs: int,
        input_transform: InputTransform | None = None,
        outcome_transform: OutcomeTransform | None = None,
    ) -> None:
        super().__init__()
        self.outcomes = outcomes
        self._n_inputs = n_inputs
        self._selected = list(range(n_outputs))
        if input_transform is not None:
            self.input_transform = input_transform
        if outcome_transform is not None:
            self.outcome_transform = outcome_transform
        self.eval()

    @property
    def num_outputs(self) -> int:
        """Number of outputs."""
        return len(self._selected)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: there is one model, not a batch of them."""
        return torch.Size()

    def forward(self, X: Tensor, *, noise: bool = False) -> Tensor:
        """Return the values of all members, before the outcome transform is undone.

        Parameters
        ----------
        X : Tensor of shape (*batch, q, d)
            After the input transform.
        noise : bool
            Whether they are draws of y instead of its mean.

        Returns
        -------
        Tensor of shape (*batch, n_draws, q, m)
        """
        self._check_inputs(X)
        values = self.outcomes(X.reshape(-1, X.shape[-1]), noise=noise)
        values = values.unflatten(1, X.shape[:-1])
        return values.movedim(0, -3)[..., self._selected]

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
        **kwargs: Any,
    ) -> EnsemblePosterior:
        """Return the ensemble of the values at X.

        Parameters
        ----------
        X : Tensor of shape (*batch, q, d)
        output_indices : list of int, optional
        observation_noise : bool
            Whether the values are draws of y, one per member and row, with the noise of the
            likelihood; they are the same in each call with an X of this shape.
        posterior_transform : PosteriorTransform, optional
            Applied to the values of each member.

        Returns
        -------
        EnsemblePosterior
            With values of shape (*batch, n_draws, q, m).
        """
        if isinstance(observation_noise, Tensor):
            raise UnsupportedError(
                "`observation_noise` must be True or False, got a Tensor: the noise is that of "
                "the likelihood, which has been fitted."
            )
        self.eval()
        X = self.transform_inputs(X)
        values = self._untransformed(self.forward(X, noise=bool(observation_noise)), X)
        if output_indices is not None:
            values = values[..., output_indices]
        if posterior_transform is not None:
            n_dims = values.dim()
            values = posterior_transform.evaluate(values, X.unsqueeze(-3))
            values = values if values.dim() == n_dims else values.unsqueeze(-1)
        return EnsemblePosterior(values)

    def paths(self, index: Tensor, X: Tensor) -> Tensor:
        """Return the values of some members, each at inputs of its own.

        Parameters
        ----------
        index : Tensor of shape (k,), int64
        X : Tensor of shape (k, n, d)
            Before the input transform.

        Returns
        -------
        Tensor of shape (k, n, m)
        """
        self.eval()
        X = self.transform_inputs(X)
        self._check_inputs(X)
        return self._untransformed(self.outcomes.of_draws(index, X)[..., self._selected], X)

    def subset_output(self, idcs: list[int]) -> BayesianNetworkModel:
        """Return the model of some of the outputs, with the same draws."""
        selected = [self._selected[i] for i in idcs]
        transform = getattr(self, "outcome_transform", None)
        subset = type(self)(
            self.outcomes,
            self._n_inputs,
            len(selected),
            getattr(self, "input_transform", None),
            None if transform is None else transform.subset_output(idcs),
        )
        subset._selected = selected
        return subset

    def condition_on_observations(self, X: Tensor, Y: Tensor, **kwargs: Any) -> NoReturn:
        """Raise a NotImplementedError."""
        raise NotImplementedError(f"`condition_on_observations`: {NO_CONDITIONING}")

    def fantasize(self, X: Tensor, sampler: Any, **kwargs: Any) -> NoReturn:
        """Raise a NotImplementedError."""
        raise NotImplementedError(f"`fantasize`: {NO_CONDITIONING}")

    def eval(self) -> Self:
        """Put the model in evaluation mode; BoTorch's would look for training inputs."""
        return self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Put the transforms in training mode; the networks stay in evaluation mode."""
        nn.Module.train(self, mode)
        self.outcomes.train(False)
        return self

    def _untransformed(self, values: Tensor, X: Tensor) -> Tensor:
        if not hasattr(self, "outcome_transform"):
            return values
        untransformed, _ = self.outcome_transform.untransform(values, X=X)
        return untransformed

    def _check_inputs(self, X: Tensor) -> None:
        if X.dim() < 2 or X.shape[-1] != self._n_inputs:
            raise ValueError(
                f"`X` must have shape (..., q, {self._n_inputs}), got {tuple(X.shape)}."
            )
        if not X.is_floating_point():  # values have the type of X
            raise TypeError(f"`X` must hold real numbers, got {X.dtype}: pass X.double().")
