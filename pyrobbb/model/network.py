"""BayesianNetwork: an nn.Module, a prior and a likelihood as one Pyro model."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import effectful
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import biject_to, constraints
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from .._core.arrays import ArrayLike, as_tensor, check_count, supports_float64
from ..likelihoods import (
    Conditional,
    Gaussian,
    Likelihood,
    as_observed,
    base_of,
    check_output,
    check_shape,
    check_support,
    log_density,
)
from ..priors import ByName, Prior, ScaleMixture, fan_in
from .sequential import layers_of, run_layers

logger = logging.getLogger(__name__)

DEFAULT_PRIOR = ScaleMixture(pi=0.5, scale1=1.0, scale2=0.1)
"""Under a single normal prior a mean-field posterior pays dearly for each unit that it silences, so
that a wide net on few data had rather predict a constant (Coker et al. 2022). The narrow part of a
mixture lets units rest at little cost, the wide part lets the others be large."""


@dataclass(frozen=True)
class LatentSite:
    """One latent Pyro site of a network: what a guide needs to know of it.

    Attributes
    ----------
    name : str
    start : Tensor
        Where a guide starts, in the site's own (constrained) space: a weight's present value, or
        the prior median of a latent of the likelihood.
    support : constraint
    fan_in : int
        Inputs that feed one unit (see `pyrobbb.priors.fan_in`); 1 for a latent of the likelihood.
    """

    name: str
    start: Tensor
    support: constraints.Constraint
    fan_in: int


class BayesianNetwork(nn.Module):
    """A neural network with priors on its weights, as a Pyro model.

    The module is lifted, never copied or rewritten: each Bayesian parameter becomes a Pyro site of
    the name it has in ``net.named_parameters()``, and the untouched module runs with the sampled
    values in their place. A parameter whose prior is None, or that is frozen
    (``requires_grad=False``), stays a point; unless frozen it is learnt with the guide.

    Parameters
    ----------
    net : nn.Module
        Any module that maps x, shape (n, ...), to an output of shape (n, ...).
    prior : callable
        ``(name, parameter) -> distribution or None``; see `pyrobbb.priors`. By default
        ``ScaleMixture(0.5, 1.0, 0.1)``.
    likelihood : callable
        ``output -> distribution``; see `pyrobbb.likelihoods`. By default `Gaussian` with learnt
        noise.

    Attributes
    ----------
    autocast : torch.dtype or None
        What the module computes in while the model runs, as by `torch.autocast`; its output comes
        back in the dtype of the weights, so that densities do not know of it. Predictions do not
        use it. None: the dtype of the weights.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, a prior does not have its parameter's shape, or no
        parameter is Bayesian.

    Examples
    --------
    >>> network = BayesianNetwork(mlp(13, [50], 1))
    >>> svi = pyro.infer.SVI(network, MeanFieldGuide(network), optim, Trace_ELBO())
    >>> svi.step(x, y)
    """

    def __init__(
        self,
        net: nn.Module,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"`net` must be a torch.nn.Module, got {type(net).__name__}.")
        self.net = net
        self.prior: Prior = DEFAULT_PRIOR if prior is None else prior
        self.likelihood: Likelihood = Gaussian() if likelihood is None else likelihood
        for argument, value in (("prior", self.prior), ("likelihood", self.likelihood)):
            if isinstance(value, type | torch.distributions.Distribution) or not callable(value):
                hint = ": a class, write parentheses after it" if isinstance(value, type) else ""
                raise TypeError(
                    f"`{argument}` must be a callable such as those of pyrobbb.{argument}s, got "
                    f"{value!r}{hint}."
                )
        if isinstance(self.prior, ByName):
            self.prior.check_names(name for name, _ in net.named_parameters())
        self._bayesian = frozenset(
            name for name, parameter in net.named_parameters() if self._is_bayesian(name, parameter)
        )
        if not self._bayesian:
            raise ValueError("`prior` leaves no parameter of `net` Bayesian: all are points.")
        self.autocast: torch.dtype | None = None
        self._refuses_vmap: set[bool] = set()  # the training modes in which vmap has failed

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        n_data: int | None = None,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """Run the Pyro model: draw the weights, then y given x in the plate ``"data"``.

        Parameters
        ----------
        x : Tensor of shape (n, ...)
        y : Tensor of shape (n, ...), optional
            Observations, or None to draw them.
        n_data : int, optional
            Size of the whole data set of which x is a batch: the log-likelihood counts n_data / n
            times. None: x is all the data.
        row_weight : Tensor of shape (n,), optional
            How many times each row counts in the log-likelihood, at least 0. None: once.

        Returns
        -------
        Tensor
            y, observed or drawn, with the batch dimensions of vectorised draws in front.
        """
        weights = {
            name: pyro.sample(name, self.prior(name, parameter))
            for name, parameter in self.bayesian_parameters()
        }
        points = {
            name: param_site(f"net.{name}", parameter)
            for name, parameter in self.point_parameters()
        }
        with self.autocasting(x) as restored:
            output, n_batch = self._output(weights, x, points)
        output = restored(output)
        distribution = self._per_row(self._apply_likelihood(output), n_batch)
        n_rows = output.shape[n_batch]
        if y is not None:
            check_shape(self.likelihood, distribution.shape()[n_batch:], y)
            y = as_observed(distribution, y, output.dtype)
        with _data_plate(n_rows, n_data), _weighted(row_weight, n_rows):
            return pyro.sample("y", distribution, obs=y)

    def bayesian_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Give the names and parameters of `net` that have a prior."""
        return [(n, p) for n, p in self.net.named_parameters() if n in self._bayesian]

    def point_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Give the names and parameters of `net` that are learnt as points."""
        return [
            (name, parameter)
            for name, parameter in self.net.named_parameters()
            if name not in self._bayesian and parameter.requires_grad
        ]

    def output(
        self,
        draws: Mapping[str, Tensor],
        x: Tensor,
        points: Mapping[str, Tensor] | None = None,
        *,
        x_per_draw: bool = False,
        rows_at_once: int | None = None,
    ) -> Tensor:
        """Run the module under draws of its weights, all draws at once.

        Parameters
        ----------
        draws : mapping of str to Tensor of shape (n_draws, *parameter)
        x : Tensor of shape (n, ...), or (n_draws, n, ...) with `x_per_draw`
        points : mapping of str to Tensor of shape (n_draws, *parameter), optional
            Values of point parameters, in place of the module's own.
        x_per_draw : bool
            Whether each draw has inputs of its own.
        rows_at_once : int, optional
            Most rows for which activations are held at a time. None: all.

        Returns
        -------
        Tensor of shape (n_draws, n, ...)
        """
        weights = {name: draws[name] for name, _ in self.bayesian_parameters()} | dict(points or {})
        layers = layers_of(self.net)
        if layers is not None and x.dim() == 2 + x_per_draw:
            tiles = x.split(rows_at_once or x.shape[-2], -2)
            return torch.cat([run_layers(layers, weights, tile) for tile in tiles], -2)
        if x_per_draw:
            return self._map(self.run, (weights, x))
        if rows_at_once is None or len(x) <= rows_at_once:
            return self._map(lambda values: self.run(values, x), (weights,))
        # The loop over rows lies within the mapping: entering that costs as much as a small tile.
        in_tiles = _InTiles(self.net, rows_at_once)
        named = {f"net.{name}": value for name, value in weights.items()}
        return self._map(lambda values: functional_call(in_tiles, values, (x,)), (named,))

    @contextmanager
    def autocasting(self, x: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
        """Run the module in `autocast` within; what is given brings its output back from there."""
        if self.autocast is None:
            yield lambda output: output
            return
        dtype = self.bayesian_parameters()[0][1].dtype
        with torch.autocast(x.device.type, self.autocast):
            yield lambda output: output.to(dtype)

    def run(self, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Run the module with one set of values in the place of its parameters."""
        return functional_call(self.net, dict(values), (x,))

    def distribution(self, output: Tensor, latents: Mapping[str, Tensor]) -> TorchDistribution:
        """Give the distribution of y under draws of the network's output.

        Parameters
        ----------
        output : Tensor of shape (n_draws, n, ...)
        latents : mapping of str to Tensor of shape (n_draws, *site)
            Draws of the likelihood's own latent sites, if it has any.

        Returns
        -------
        distribution of batch shape (n_draws, n)
        """
        if isinstance(self.likelihood, Conditional):
            lined_up = {
                name: _in_line(value, self.likelihood.latents[name].event_dim, output.dim())
                for name, value in latents.items()
            }
            distribution = self.likelihood.given(output, lined_up)
        else:
            data = {name: value[:, None] for name, value in latents.items()}
            with poutine.block(), poutine.condition(data=data):
                distribution = self._apply_likelihood(output)
        return self._per_row(distribution, 1).expand(output.shape[:2])

    def latents_of(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give those of some draws that are latent sites of the likelihood, not weights."""
        return {name: value for name, value in draws.items() if name not in self._bayesian}

    def log_prior(self, draws: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Give the log prior density of draws of all latent sites, in nats.

        Parameters
        ----------
        draws : mapping of str to Tensor of shape (n_draws, *site)
        x : Tensor of shape (n, ...)
            Some input, for a likelihood that draws sites which it does not list as `latents`.

        Returns
        -------
        Tensor of shape (n_draws,), float64
        """
        priors = {name: self.prior(name, p) for name, p in self.bayesian_parameters()}
        priors |= getattr(self.likelihood, "latents", None) or {}
        parts = [log_density(prior, draws[name]) for name, prior in priors.items()]
        others = {name: value[:, None] for name, value in draws.items() if name not in priors}
        if others:
            output = self.output(draws, x[:1])
            with poutine.block(), poutine.condition(data=others), _LineUp(output.dim()):
                nodes = poutine.trace(self.likelihood).get_trace(output).nodes
            parts += [log_density(nodes[name]["fn"], nodes[name]["value"]) for name in others]
        return torch.stack(parts).sum(0)

    def latent_sites(self, x: ArrayLike | None = None) -> list[LatentSite]:
        """List the latent sites in the order in which the model draws them.

        Parameters
        ----------
        x : Tensor of shape (n, ...), optional
            Some input. Needed only if the likelihood is a callable of your own that draws latent
            sites and does not list them as `latents`.
        """
        sites = [
            LatentSite(name, parameter.detach().clone(), constraints.real, fan_in(parameter))
            for name, parameter in self.bayesian_parameters()
        ]
        like = sites[0].start
        latents = getattr(self.likelihood, "latents", None)
        if latents is None:
            latents = {} if x is None else self._traced_latents(x)
        for name, prior in latents.items():
            sites.append(LatentSite(name, start_of(prior).to(like), prior.support, 1))
        return sites

    def prepare_inputs(self, x: ArrayLike) -> Tensor:
        """Check inputs against the network and bring them to its device and dtype."""
        return self._prepare_inputs(x)[0]

    def prepare(self, x: ArrayLike, y: ArrayLike) -> tuple[Tensor, Tensor]:
        """Check data against the network and bring them to its device and dtype.

        Every mistake that can be seen before the first step is reported here: no rows, NaN,
        strings, lengths that differ, y in another shape than the likelihood gives it, labels out
        of range, negative counts, probabilities where logits are due.

        Parameters
        ----------
        x, y : array-like of shape (n, ...)

        Returns
        -------
        x, y : Tensor
        """
        x, output = self._prepare_inputs(x)
        y = as_tensor("y", y)
        if y.dtype == torch.float64 and not supports_float64(x.device):
            y = y.to(output.dtype)
        y = y.to(x.device)
        if len(x) != len(y):
            raise ValueError(f"`x` and `y` must have one row each: got {len(x)} and {len(y)} rows.")
        check_output(self.likelihood, self.net, output)
        distribution = self._at_start(output)
        check_shape(self.likelihood, (len(y), *distribution.shape()[1:]), y)
        check_support(self.likelihood, distribution, y)
        return x, as_observed(distribution, y, output.dtype)

    def targets_like(self, x: ArrayLike) -> Tensor:
        """Give zeros in the shape and dtype that y has for x.

        Parameters
        ----------
        x : array-like of shape (n, ...)
        """
        _, output = self._prepare_inputs(x)
        distribution = self._at_start(output)
        return as_observed(distribution, output.new_zeros(distribution.shape()), output.dtype)

    def _at_start(self, output: Tensor) -> TorchDistribution:
        """Give the distribution of y where the likelihood's latent sites start."""
        with poutine.block(), InitMessenger(_start_of_site):
            return self._per_row(self.likelihood(output), 0)

    def _prepare_inputs(self, x: ArrayLike) -> tuple[Tensor, Tensor]:
        """Give the inputs, and the module's output for the first of them."""
        like = self.bayesian_parameters()[0][1]
        x = as_tensor("x", x)
        takes_integers = any(
            isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in self.net.modules()
        )
        if x.is_floating_point() or not takes_integers:
            x = x.to(like.dtype)
        x = x.to(like.device)
        return x, self._try_on(x[:2])

    def _is_bayesian(self, name: str, parameter: nn.Parameter) -> bool:
        if is_lazy(parameter):
            raise ValueError(
                f"`net` has the lazy parameter {name!r}: run the module once on some rows first."
            )
        latents = getattr(self.likelihood, "latents", None) or ()
        if name in ("y", "data", *latents):
            raise ValueError(f"`net` has a parameter named {name!r}, which is a site of the model.")
        if not parameter.requires_grad:
            return False
        prior = self.prior(name, parameter)
        if prior is None:
            return False
        if not isinstance(prior, torch.distributions.Distribution):
            raise TypeError(
                f"`prior` must give a distribution or None, got {type(prior).__name__} for "
                f"{name!r}."
            )
        if not is_real(prior.support):
            raise ValueError(
                f"`prior` must give {name!r} a distribution over all real numbers, got "
                f"{type(prior).__name__} with the support {prior.support}."
            )
        if prior.event_shape != parameter.shape or prior.batch_shape:
            raise ValueError(
                f"`prior` must give {name!r} a distribution whose event has the parameter's shape "
                f"{tuple(parameter.shape)}, got batch shape {tuple(prior.batch_shape)} and event "
                f"shape {tuple(prior.event_shape)}: end it in .expand(parameter.shape)"
                ".to_event(parameter.dim())."
            )
        return True

    def _output(
        self, weights: Mapping[str, Tensor], x: Tensor, points: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, int]:
        """Run the module, mapped over the batch dimensions of its weights, and count those."""
        shapes = {name: parameter.shape for name, parameter in self.bayesian_parameters()}
        leads = {
            name: _without_data_dim(value.shape[: value.dim() - len(shapes[name])])
            for name, value in weights.items()
        }
        batch = torch.broadcast_shapes(*leads.values())
        aligned = {
            name: value.reshape((*leads[name], *shapes[name])).expand((*batch, *shapes[name]))
            for name, value in weights.items()
        }

        def call(weights: Mapping[str, Tensor]) -> Tensor:
            return self.run({**(points or {}), **weights}, x)

        if not batch:
            return call(aligned), 0
        flat = {name: value.reshape((-1, *shapes[name])) for name, value in aligned.items()}
        output = self._map(call, (flat,))
        return output.reshape((*batch, *output.shape[1:])), len(batch)

    def _map(self, call: Callable[..., Tensor], arguments: tuple[Any, ...]) -> Tensor:
        """Map a call over the first dimension of its weights, a mapping, and of further tensors."""
        mode = self.net.training
        refusal = None
        if mode not in self._refuses_vmap:
            buffers = [(buffer, buffer.clone()) for buffer in self.net.buffers()]
            try:
                with warnings.catch_warnings():  # operations that vmap itself loops over
                    warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                    return torch.vmap(call, randomness="different")(*arguments)
            except RuntimeError as error:  # recurrent layers, batch norm in training
                refusal = error
                for buffer, before in buffers:  # half a run may have counted already
                    buffer.copy_(before)
        weights, *others = arguments
        looped = [
            call({name: value[i] for name, value in weights.items()}, *(o[i] for o in others))
            for i in range(len(next(iter(weights.values()))))
        ]
        if refusal is not None:
            self._refuses_vmap.add(mode)
            reason = str(refusal).strip().splitlines()[0]
            logger.info("Draws run one by one: the module cannot be vectorised (%s)", reason)
        return torch.stack(looped)

    def _apply_likelihood(self, output: Tensor) -> TorchDistribution:
        with _LineUp(output.dim()):
            return self.likelihood(output)

    def _per_row(self, distribution: TorchDistribution, n_batch: int) -> TorchDistribution:
        """Make an event of all that a row holds: batch dimensions beyond the rows."""
        surplus = len(distribution.batch_shape) - n_batch - 1
        if surplus < 0:
            raise ValueError(
                "`likelihood` must give one distribution a row of the output, got batch shape "
                f"{tuple(distribution.batch_shape)}."
            )
        return distribution.to_event(surplus) if surplus else distribution

    def _try_on(self, x: Tensor) -> Tensor:
        """Give the module's output for some rows, leaving its mode and buffers as they were."""
        try:
            with evaluating(self.net), torch.no_grad():
                output = self.net(x)
        except (RuntimeError, IndexError, ValueError) as error:
            if x.dim() == 1:
                fix = "Pass x.reshape(-1, 1) if each row is one number"
            else:
                fix = f"It says, of {len(x)} rows: {str(error).strip().splitlines()[0]}"
            raise ValueError(
                f"`x` with rows of shape {tuple(x.shape[1:])} and dtype {x.dtype} does not fit the "
                f"network. {fix}."
            ) from error
        if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != len(x):
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output)
            raise ValueError(
                f"`net` must give a tensor with one row for each row of x: for {len(x)} rows it "
                f"gave {got}."
            )
        return output

    def _traced_latents(self, x: ArrayLike) -> dict[str, TorchDistribution]:
        _, output = self._prepare_inputs(x)
        with poutine.block():
            likelihood = InitMessenger(_start_of_site)(self.likelihood)
            trace = poutine.trace(likelihood).get_trace(output)
        return {name: site["fn"] for name, site in trace.iter_stochastic_nodes()}


class _InTiles(nn.Module):
    """A module that takes its rows some at a time."""

    def __init__(self, net: nn.Module, n_rows: int) -> None:
        super().__init__()
        self.net, self._n_rows = net, n_rows

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(rows) for rows in x.split(self._n_rows)])


class _LineUp(Messenger):
    """Hands a likelihood the draws of its latent sites in line with the rows of its output.

    A vectorised draw has batch dimensions (n_draws, 1), the 1 being the place of the data plate
    (Pyro's Predictive leaves it out where the site has an event). Only what the likelihood gets is
    reshaped, not what outer handlers see.
    """

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self._n_dims = n_dims

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        value, n_event = msg["value"], msg["fn"].event_dim
        n_batch = value.dim() - n_event
        batch, event = value.shape[:n_batch], value.shape[n_batch:]
        own = msg["fn"].batch_shape
        if not batch or (own and own[-1] != 1):  # one draw; one for each row
            return
        batch = _without_data_dim(batch)
        ones = (1,) * (self._n_dims - len(batch) - n_event)
        msg["value"] = value.reshape((*batch, *ones, *event))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each of its parts back into its own."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def param_site(name: str, parameter: nn.Parameter) -> Tensor:
    """Announce a parameter to Pyro's handlers without writing it into the global param store."""
    value = parameter.view_as(parameter)
    value.unconstrained = weakref.ref(parameter)  # type: ignore[attr-defined]  # SVI steps on it
    announce = effectful(lambda *_, **__: value, type="param")
    return announce(name, constraint=constraints.real, name=name)


def elementwise(support: constraints.Constraint | None) -> constraints.Constraint | None:
    """Give the constraint on one element of a site."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def is_real(support: constraints.Constraint | None) -> bool:
    """Say whether a site is unconstrained; by type, as copied guides have copied constraints."""
    return isinstance(elementwise(support), type(constraints.real))


def start_of(prior: TorchDistribution) -> Tensor:
    """Give a fixed point to start from: the prior's median where it is known in closed form."""
    base, device = base_of(prior), _device_of(prior)
    dtype = torch.float64 if device is None or supports_float64(device) else torch.float32
    try:
        start = base.icdf(torch.full(base.batch_shape, 0.5, dtype=dtype, device=device))
    except NotImplementedError:
        to_support = biject_to(prior.support)
        start = to_support(torch.zeros(to_support.inverse_shape(prior.shape()), device=device))
    return start.detach()


def _device_of(distribution: Any) -> torch.device | None:
    """Give where a distribution's parameters are."""
    for value in vars(distribution).values():
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, torch.distributions.Distribution):
            return _device_of(value)
    return None


def _start_of_site(site: Mapping[str, Any]) -> Tensor:
    # Pyro's own starting points draw from the random state of the caller.
    return start_of(site["fn"])


def _in_line(value: Tensor, n_event: int, n_dims: int) -> Tensor:
    """Line up draws (n_draws, *event) with an output of n_dims dimensions, the first the draws."""
    event = value.shape[value.dim() - n_event :]
    return value.reshape((len(value), *(1,) * (n_dims - 1 - n_event), *event))


def check_n_data(n_data: int | None, n_rows: int) -> None:
    """Raise unless the size of the data set is that of a set that can hold the rows."""
    if n_data is None:
        return
    check_count("n_data", n_data)
    if n_data < n_rows:
        raise ValueError(
            f"`n_data` is the size of the whole data set, at least the {n_rows} rows of x, got "
            f"{n_data}."
        )


def check_row_weight(row_weight: Tensor | None, n_rows: int) -> None:
    """Raise unless there is a weight of at least 0 for each row."""
    if row_weight is None:
        return
    if tuple(row_weight.shape) != (n_rows,):
        raise ValueError(
            f"`row_weight` must have shape ({n_rows},), one number for each row of x, got "
            f"{tuple(row_weight.shape)}."
        )
    if not bool((row_weight >= 0).all()):
        raise ValueError(f"`row_weight` must be at least 0, got {float(row_weight.min())}.")


@contextmanager
def _weighted(row_weight: Tensor | None, n_rows: int) -> Iterator[None]:
    """Let each row of the observed site count so many times."""
    if row_weight is None:
        yield
        return
    check_row_weight(row_weight, n_rows)
    counts = row_weight > 0  # poutine.scale takes no 0
    with poutine.mask(mask=counts), poutine.scale(scale=row_weight.where(counts, 1.0)):
        yield


def _data_plate(n_rows: int, n_data: int | None) -> pyro.plate:
    if n_data is None:
        return pyro.plate("data", n_rows, dim=-1)
    check_n_data(n_data, n_rows)
    return pyro.plate("data", n_data, subsample=torch.arange(n_rows), dim=-1)


def _without_data_dim(batch: torch.Size) -> torch.Size:
    # The model's plate "data" is dimension -1. Vectorised draws of a weight lie outside of it and
    # so have a 1 there (Pyro's Predictive leaves it out).
    return batch[:-1] if batch and batch[-1] == 1 else batch
