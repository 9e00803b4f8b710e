"""BayesianNetwork: an nn.Module, a prior and a likelihood as one Pyro model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from .._core.arrays import ArrayLike
from .._core.display import Displayed, Listing
from .._core.signatures import suggests_arguments
from .._core.trees import Inputs, InputsLike, device_of, rows_of
from ..likelihoods import Likelihood, as_observed, check_shape, log_density
from ..priors import ByName, Prior, fan_in, scale_family
from .callables import check_callable
from .inputs import prepare_inputs, prepare_targets
from .jit import as_constants
from .likelihood_trial import initial_distribution
from .listing import list_sites
from .names import LIKELIHOODS, PRIORS, resolve
from .observation import (
    apply_likelihood,
    data_plate,
    distribution_given,
    latent_log_densities,
    one_per_row,
    weighted,
)
from .outputs import OutputOf, Selection
from .scales import LearnedScale, drawn_prior, learned_scales
from .sites import LatentSite, param_site, start_of, traced_latents
from .supported import (
    check_module,
    check_parameters,
    check_priors_are_fixed,
    has_prior,
    without_graphs,
)
from .trial import Traits, check_trial, traits_of
from .trunk import trunk_name
from .vectorized import VectorizedCall


class BayesianNetwork(Displayed, nn.Module):
    """A neural network with priors on its weights, as a Pyro model.

    The module itself is used, not a copy or a rewritten version: each Bayesian parameter becomes a
    Pyro site with the name it has in ``net.named_parameters()``, and the module runs with the
    sampled values in place of its parameters. A parameter whose prior is None, or that is frozen
    (``requires_grad=False``), has a point value, which is learned with the guide unless frozen.

    Parameters
    ----------
    net : nn.Module
        Any module that maps x, shape (n, ...), to an output of shape (n, ...). If x is a tuple or a
        mapping of tensors, these are its positional arguments or keywords; see docs/inputs.md.
    prior : str or callable
        ``(name, parameter) -> distribution or None``; see `pyrobbb.priors`. A scale that is learned
        is a latent site before that of its parameter, such as ``"0.weight_scale"``. Or a name of
        `BBBRegressor`, such as ``"mixture"``, the default: ``ScaleMixture(0.5, 1.0, 0.1)``.
    likelihood : str or callable
        ``output -> distribution``; see `pyrobbb.likelihoods`. Or ``"gaussian"`` (the default, with
        learned noise), ``"heteroscedastic"``, ``"student_t"``, ``"lognormal"``, ``"poisson"``,
        ``"negative_binomial"``, ``"bernoulli"`` or ``"categorical"``.
    output : str or callable, optional
        What the likelihood is applied to, if the module returns several tensors: a key of a
        mapping, or an attribute of a dataclass, such as ``"logits"``; or a function of what the
        module returns. It is not stored with a posterior. None: the module returns one tensor.
    trunk : str or nn.Module, optional
        The submodule whose output is all that the rest of `net` is computed from, or its name. Its
        parameters must have no prior. Predictions run it once for all draws. None: it is detected.

    Attributes
    ----------
    autocast : torch.dtype or None
        The dtype of `torch.autocast` for the module while the model runs, but not for predictions.
        Densities are computed in the dtype of the weights. None: no autocasting.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or no parameter is Bayesian.

    Examples
    --------
    >>> network = BayesianNetwork(mlp(13, [50], 1))
    >>> svi = pyro.infer.SVI(network, MeanFieldGuide(network), optim, Trace_ELBO())
    >>> svi.step(x, y)
    """

    @suggests_arguments()
    def __init__(
        self,
        net: nn.Module,
        prior: str | Prior | None = None,
        likelihood: str | Likelihood | None = None,
        *,
        output: OutputOf | None = None,
        trunk: str | nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"`net` must be a torch.nn.Module, got {type(net).__name__}.")
        self.net = net
        self.prior: Prior = resolve("prior", prior, PRIORS)
        self.likelihood: Likelihood = resolve("likelihood", likelihood, LIKELIHOODS)
        for argument, value in (("prior", self.prior), ("likelihood", self.likelihood)):
            check_callable(argument, value)
        check_module(net)
        if isinstance(self.prior, ByName):
            self.prior.check_names(name for name, _ in net.named_parameters())
        self._decisions: dict[tuple[str, bool], bool] = {}
        self._decided_by = self.prior
        self._fixed: frozenset[str] | None = None
        self.bayesian_parameters()
        self.trunk = trunk_name(net, trunk)
        self.autocast: torch.dtype | None = None
        self.select = None if output is None else Selection.of(output)
        self._vectorized = VectorizedCall(self.select)

    def forward(
        self,
        x: Inputs,
        y: Tensor | None = None,
        n_data: int | None = None,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """Run the Pyro model: draw the weights, then y given x in the plate ``"data"``.

        Parameters
        ----------
        x : Tensor of shape (n, ...), or nested tuples and dicts of them
        y : Tensor of shape (n, ...), optional
            Observations, or None to draw them.
        n_data : int, optional
            Size of the whole data set of which x is a batch: the log-likelihood is multiplied by
            n_data / n. None: x is the whole data set.
        row_weight : Tensor of shape (n,), optional
            Non-negative factor on the log-likelihood of each row. None: 1.

        Returns
        -------
        Tensor
            y, observed or drawn, with the batch dimensions of vectorised draws in front.
        """
        with as_constants():
            bayesian, of_points = self.bayesian_parameters(), self.point_parameters()
        weights = {
            name: pyro.sample(name, drawn_prior(self.prior, name, parameter))
            for name, parameter in bayesian
        }
        points = {name: param_site(f"net.{name}", p) for name, p in of_points}
        with self.autocasting(x) as restored:
            output, n_batch = self._vectorized.over_batch(self.net, weights, points, x)
        output = restored(output)
        distribution = one_per_row(apply_likelihood(self.likelihood, output), n_batch)
        n_rows = output.shape[n_batch]
        if y is not None:
            check_shape(self.likelihood, distribution.shape()[n_batch:], y)
            y = as_observed(distribution, y, output.dtype)
        with data_plate(n_rows, n_data), weighted(row_weight, n_rows):
            return pyro.sample("y", distribution, obs=y)

    def bayesian_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the names and parameters of `net` that have a prior; raise if there are none."""
        named = [(n, p) for n, p in self.net.named_parameters() if self._is_bayesian(n, p)]
        if not named:
            raise ValueError(
                "`prior` must make at least one parameter of `net` Bayesian, got none."
            )
        return named

    def point_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the names and parameters of `net` that are learned as point values."""
        return [
            (name, parameter)
            for name, parameter in self.net.named_parameters()
            if parameter.requires_grad
            and parameter.numel() > 0
            and not self._is_bayesian(name, parameter)
        ]

    def fix_parameters(self) -> None:
        """Keep the present Bayesian parameters from now on, also if they are frozen later.

        A fitted network has draws of them. Before that, freezing a parameter or adding a layer
        changes the model.
        """
        self._fixed = frozenset(name for name, _ in self.bayesian_parameters())

    def _is_bayesian(self, name: str, parameter: nn.Parameter) -> bool:
        if self._fixed is not None:
            return name in self._fixed
        if self._decided_by is not self.prior:
            self._decisions, self._decided_by = {}, self.prior
        key = name, parameter.requires_grad
        if key not in self._decisions:
            latents = getattr(self.likelihood, "latents", None) or ()
            named = dict(self.net.named_parameters())
            scales = (f.site(n) for n in named if (f := scale_family(self.prior, n)))
            self._decisions[key] = has_prior(
                self.prior, name, parameter, reserved=("y", "data", *latents, *scales)
            )
        return self._decisions[key]

    def _listing(self) -> Listing:
        return list_sites(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> BayesianNetwork:
        memo.update(without_graphs(self))
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    def output(
        self,
        draws: Mapping[str, Tensor],
        x: Inputs,
        points: Mapping[str, Tensor] | None = None,
        *,
        x_per_draw: bool = False,
        rows_at_once: int | None = None,
    ) -> Tensor:
        """Run the module under draws of its weights, vectorised over the draws.

        Parameters
        ----------
        draws : mapping of str to Tensor of shape (n_draws, *parameter)
        x : Inputs of shape (n, ...), or (n_draws, n, ...) with `x_per_draw`
        points : mapping of str to Tensor of shape (n_draws, *parameter), optional
            Values that replace those of point parameters.
        x_per_draw : bool
            Whether each draw has different inputs.
        rows_at_once : int, optional
            Maximum number of rows for which activations are in memory at a time. None: no limit.

        Returns
        -------
        Tensor of shape (n_draws, n, ...)
        """
        values = {name: draws[name] for name, _ in self.bayesian_parameters()} | dict(points or {})
        return self._vectorized.over_draws(
            self.net, values, x, x_per_draw=x_per_draw, rows_at_once=rows_at_once
        )

    @contextmanager
    def autocasting(self, x: Inputs) -> Iterator[Callable[[Tensor], Tensor]]:
        """Enable `autocast` within the block; yield a function that restores the output's dtype."""
        if self.autocast is None:
            yield lambda output: output
            return
        dtype = self.bayesian_parameters()[0][1].dtype
        with torch.autocast(device_of(x).type, self.autocast):
            yield lambda output: output.to(dtype)

    def distribution(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        """Return the distribution of y under draws of the network's output.

        Parameters
        ----------
        output : Tensor of shape (n_draws, n, ...)
        latents : mapping of str to Tensor of shape (n_draws, *site)
            Draws of the likelihood's latent sites, if it has any.

        Returns
        -------
        distribution of batch shape (n_draws, n)
        """
        return distribution_given(self.likelihood, output, latents)

    def learned_scales(self) -> dict[str, LearnedScale]:
        """Return the learned scales of the prior, by the name of the parameter."""
        return learned_scales(self.prior, self.bayesian_parameters())

    def prior_given(
        self, name: str, parameter: Tensor, draws: Mapping[str, Tensor]
    ) -> TorchDistribution:
        """Return the prior of a Bayesian parameter under draws of its scale, if that is learned.

        Parameters
        ----------
        name : str
        parameter : Tensor
        draws : mapping of str to Tensor of shape (*batch, *site)
            Draws of latent sites. If the scale is not among the sites, the batch shape of the prior
            is ().
        """
        family = scale_family(self.prior, name)
        if family is None:
            prior: TorchDistribution = self.prior(name, parameter)
            return prior
        return family.given(parameter, draws[family.site(name)].to(parameter))

    def hyperparameters_of(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the draws of all latent sites but the weights: learned scales and noise."""
        weights = {name for name, _ in self.bayesian_parameters()}
        return {name: value for name, value in draws.items() if name not in weights}

    def latents_of(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the draws of the likelihood's latent sites alone."""
        scales = {scale.site for scale in self.learned_scales().values()}
        others = self.hyperparameters_of(draws)
        return {name: value for name, value in others.items() if name not in scales}

    def log_prior(self, draws: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """Compute the log prior density of draws of all latent sites, in nats.

        Parameters
        ----------
        draws : mapping of str to Tensor of shape (n_draws, *site)
        x : Inputs of shape (n, ...)
            Any input. Used only if the likelihood draws sites that it does not list in `latents`.

        Returns
        -------
        Tensor of shape (n_draws,), float64
        """
        priors = {name: self.prior_given(name, p, draws) for name, p in self.bayesian_parameters()}
        priors |= {scale.site: scale.hyperprior for scale in self.learned_scales().values()}
        priors |= getattr(self.likelihood, "latents", None) or {}
        parts = [log_density(prior, draws[name]) for name, prior in priors.items()]
        unlisted = {name: value for name, value in draws.items() if name not in priors}
        if unlisted:
            parts += latent_log_densities(self.likelihood, self.output(draws, x), unlisted)
        return torch.stack(parts).sum(0)

    def latent_sites(self, x: InputsLike | None = None) -> list[LatentSite]:
        """Return the latent sites in the order in which the model draws them.

        Any input x is needed only if the likelihood is a custom callable that draws latent sites
        and does not list them in `latents`.
        """
        scales, sites = self.learned_scales(), []
        for name, parameter in self.bayesian_parameters():
            if scale := scales.get(name):
                start = start_of(scale.hyperprior).to(parameter)
                sites.append(LatentSite(scale.site, start, scale.hyperprior.support, 1))
            start = parameter.detach().clone()
            sites.append(LatentSite(name, start, constraints.real, fan_in(parameter)))
        like = sites[-1].start
        latents = getattr(self.likelihood, "latents", None)
        if latents is None and x is not None:
            latents = traced_latents(self.likelihood, self._prepare_inputs(x)[1])
        for name, prior in (latents or {}).items():
            sites.append(LatentSite(name, start_of(prior).to(like), prior.support, 1))
        return sites

    def traits(self, x: Inputs) -> Traits:
        """Return whether rows of x affect each other in the module, and whether it is random."""
        return traits_of(self.net, x, self.select)

    def example_of(self, x: Inputs) -> Any:
        """Return the first row of x, or all rows if they depend on each other in the module."""
        return x if self.traits(x).mixes_rows else rows_of(x, slice(1))

    def check_trial(self, x: Inputs) -> None:
        """Raise a ValueError unless the module's output at x follows draws of its parameters."""
        learned = self.bayesian_parameters() + self.point_parameters()
        check_priors_are_fixed(self.prior, self.bayesian_parameters())
        check_trial(self.net, [name for name, _ in learned], x, self.select)

    def prepare_inputs(self, x: InputsLike) -> Any:
        """Check inputs against the network and convert them to its device and dtype."""
        return self._prepare_inputs(x)[0]

    def prepare(self, x: InputsLike, y: ArrayLike) -> tuple[Any, Tensor]:
        """Check data against the network and convert them to its device and dtype.

        Every error that can be detected before the first step is raised here: no rows, NaN,
        strings, different lengths, a y whose shape does not match the likelihood, labels out of
        range, negative counts, probabilities in place of logits.

        Parameters
        ----------
        x, y : array-like of shape (n, ...); x also nested tuples and mappings of them

        Returns
        -------
        x, y : Tensor
        """
        check_parameters(self.bayesian_parameters() + self.point_parameters())
        x, output = self._prepare_inputs(x)
        return x, prepare_targets(self.net, self.likelihood, x, output, y)

    def targets_like(self, x: InputsLike) -> Tensor:
        """Return zeros of the shape and dtype that y has for x; see `prepare`."""
        _, output = self._prepare_inputs(x)
        distribution = initial_distribution(self.likelihood, output)
        return as_observed(distribution, output.new_zeros(distribution.shape()), output.dtype)

    def _prepare_inputs(self, x: InputsLike) -> tuple[Any, Tensor]:
        return prepare_inputs(self.net, self.bayesian_parameters()[0][1], x, self.select)
