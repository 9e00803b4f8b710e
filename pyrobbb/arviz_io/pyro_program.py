"""A Pyro model or guide, run once for each of many draws: vectorised, or in a loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from .pyro_sites import (
    Site,
    batch_shape,
    counts,
    dimension_names,
    plate_depth,
    sample_sites,
    site_kind,
)

logger = logging.getLogger(__name__)

MAX_ELEMENTS = 2**24
"""Bound on the elements of all sites in one vectorised run: some hundred megabytes."""


@dataclass(frozen=True, eq=False)
class SiteRuns:
    """The results of one sample site in n runs of a program.

    Attributes
    ----------
    values : Tensor of shape (n, *site)
    log_prob : Tensor of shape (n, *batch)
        Without the scale of plates and `pyro.poutine.scale`, also for masked elements.
    counts : Tensor of shape (n, *batch)
        Whether an element is not masked.
    total_log_prob : Tensor of shape (n,)
        With scales and masks, summed over the batch, in float64.
    """

    values: Tensor
    log_prob: Tensor
    counts: Tensor
    total_log_prob: Tensor


Runs = dict[str, SiteRuns]
"""The results of a program's sample sites, by name."""


def site_values(runs: Runs, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the values of those of the named sites that are in the runs."""
    return {name: runs[name].values for name in names if name in runs}


def total_log_prob(runs: Runs) -> Tensor:
    """Return the log joint density of all sites in each run, shape (n,), float64."""
    return torch.stack([site.total_log_prob for site in runs.values()]).sum(0)


class Program:
    """A model or a guide, together with the arguments of its runs.

    Parameters
    ----------
    function : callable
        The model or the guide.
    args, kwargs

    Attributes
    ----------
    latent, deterministic, observed : list of str
        Names of the sites of each kind.
    observations : dict of str to Tensor
        Values of the observed sites.
    counts : dict of str to Tensor
        Whether the elements of the observed sites are not masked.
    dims : dict of str to list of str
        Names of the dimensions of each site, see `dimension_names`.

    Raises
    ------
    ValueError
        If a plate draws a random subsample.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._function, self._args, self._kwargs = function, tuple(args), dict(kwargs or {})
        subsamples = _SubsampleMessenger()
        self._trace(subsamples(function))  # An autoguide creates its parameters in its first run.
        subsamples.check()
        self._sites: dict[str, Site] = sample_sites(self._trace(function))
        kinds = {name: site_kind(site) for name, site in self._sites.items()}
        self.latent = [name for name, kind in kinds.items() if kind == "latent"]
        self.deterministic = [name for name, kind in kinds.items() if kind == "deterministic"]
        self.observed = [name for name, kind in kinds.items() if kind == "observed"]
        self.observations = {name: self._sites[name]["value"] for name in self.observed}
        self.counts = {name: counts(self._sites[name]) for name in self.observed}
        self.dims = {name: dimension_names(name, site) for name, site in self._sites.items()}
        self._plate_depth = max(map(plate_depth, self._sites.values()), default=0)
        self._is_vectorisable = True

    def without_singletons(self, name: str, draws: Tensor) -> Tensor:
        """Remove the dimensions of size 1 that Pyro's `Predictive` adds after that of the draws.

        Unlike `split`, it accepts draws for other numbers of rows.
        """
        n_dims = 1 + self._sites[name]["value"].dim() if name in self._sites else draws.dim()
        while draws.dim() > n_dims and draws.shape[1] == 1:
            draws = draws.squeeze(1)
        return draws

    def split(self, draws: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Reshape draws to the shapes of their sites, and separate latent from observed sites.

        Singleton dimensions that Pyro's `Predictive` adds for plates are removed. Deterministic
        sites are dropped, because a run computes them. Names that are not in the program count as
        latent.

        Parameters
        ----------
        draws : mapping of str to Tensor of shape (n, ...)

        Returns
        -------
        latent, observed : dict of str to Tensor of shape (n, *site)

        Raises
        ------
        ValueError
            If draws have a shape that differs from that of their site.
        """
        latent, observed = {}, {}
        for name, value in draws.items():
            site = self._sites.get(name)
            if site is None:
                latent[name] = value
                continue
            shape = (len(value), *site["value"].shape)
            if value.numel() != shape[0] * site["value"].numel():
                raise ValueError(
                    f"`posterior` has draws of {name!r} of shape {tuple(value.shape[1:])}, but in "
                    f"the model it has shape {tuple(site['value'].shape)}."
                )
            if name in self.observed:
                observed[name] = value.reshape(shape)
            elif name not in self.deterministic:
                latent[name] = value.reshape(shape)
        return latent, observed

    def run(self, n: int, draws: Mapping[str, Tensor] | None = None) -> Runs:
        """Run the program n times.

        Parameters
        ----------
        n : int
        draws : mapping of str to Tensor of shape (n, *site), optional
            Values of latent sites. Latent sites that are not in it are sampled.
        """
        draws = {name: value for name, value in (draws or {}).items() if name in self._sites}
        n_elements = sum(site["value"].numel() for site in self._sites.values())
        size = max(MAX_ELEMENTS // max(n_elements, 1), 1)
        blocks = []
        for start in range(0, n, size):
            block = {name: value[start : start + size] for name, value in draws.items()}
            blocks.append(self._run_block(min(size, n - start), block))
        return _combine(torch.cat, blocks)

    def _run_block(self, n: int, draws: Mapping[str, Tensor]) -> Runs:
        if self._is_vectorisable:
            try:
                runs = self._run_vectorised(n, draws)
                self._check_vectorised(runs)
            except Exception as error:  # A program for single draws may raise anything.
                self._is_vectorisable = False
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                logger.info(
                    "The program is run once per draw: it cannot be vectorised (%s)", reason
                )
            else:
                return runs
        singles = [
            self._run_single({name: value[i] for name, value in draws.items()}) for i in range(n)
        ]
        return _combine(torch.stack, singles)

    def _run_single(self, values: Mapping[str, Tensor]) -> Runs:
        trace = self._trace(poutine.condition(self._function, data=dict(values)))
        trace.compute_log_prob()
        return {
            name: SiteRuns(
                site["value"],
                site["unscaled_log_prob"],
                counts(site),
                site["log_prob"].double().sum(),
            )
            for name, site in sample_sites(trace).items()
        }

    def _run_vectorised(self, n: int, draws: Mapping[str, Tensor]) -> Runs:
        """Run the program in a plate of n draws, to the left of all its plates."""
        data = {
            name: value.reshape((*self._lead_shape(n, self._sites[name]), *value.shape[1:]))
            for name, value in draws.items()
        }
        program = poutine.condition(self._function, data=data)
        with (
            poutine.block(),
            poutine.trace() as tracer,
            pyro.plate("_draws", n, dim=-1 - self._plate_depth),
        ):
            program(*self._args, **self._kwargs)
        tracer.trace.compute_log_prob()
        sites = sample_sites(tracer.trace)
        if sites.keys() != self._sites.keys():
            raise ValueError("its sites differ from those of a single run")
        return {name: self._collapse(n, site, self._sites[name]) for name, site in sites.items()}

    def _collapse(self, n: int, site: Site, single: Site) -> SiteRuns:
        """Remove the singleton dimensions between the plate of draws and a site's dimensions."""
        lead = self._lead_shape(n, single)
        batch, shape = batch_shape(single), single["value"].shape
        value = site["value"]
        if value.numel() != n * shape.numel():  # The value is the same for all draws.
            value = value.expand((*lead, *shape))
        return SiteRuns(
            value.reshape((n, *shape)),
            site["unscaled_log_prob"].expand((*lead, *batch)).reshape((n, *batch)),
            counts(site).expand((*lead, *batch)).reshape((n, *batch)),
            site["log_prob"].double().expand((*lead, *batch)).reshape((n, -1)).sum(1),
        )

    def _lead_shape(self, n: int, single: Site) -> tuple[int, ...]:
        """Return the shape to the left of a site's dimensions in a vectorised run."""
        return (n, *(1,) * (self._plate_depth - len(batch_shape(single))))

    def _check_vectorised(self, runs: Runs) -> None:
        """Raise unless the first of the vectorised runs agrees with a single run."""
        if any(site["infer"].get("is_auxiliary") for site in self._sites.values()):
            return  # Pyro's autoguides, which have auxiliary sites, are vectorised by Pyro itself.
        single = self._run_single({name: runs[name].values[0] for name in self.latent})
        for name in [*self.latent, *self.observed, *self.deterministic]:
            pairs = [(runs[name].log_prob[0], single[name].log_prob)]
            if name not in self.observed:
                pairs.append((runs[name].values[0], single[name].values))
            for actual, expected in pairs:
                if not torch.allclose(
                    actual.double(), expected.double(), 1e-3, 1e-4, equal_nan=True
                ):
                    raise ValueError(f"{name!r} differs from a single run")

    def _trace(self, function: Callable[..., Any]) -> poutine.Trace:
        with poutine.block():
            return poutine.trace(function).get_trace(*self._args, **self._kwargs)


def _combine(join: Callable[[list[Tensor]], Tensor], parts: Sequence[Runs]) -> Runs:
    return {
        name: SiteRuns(
            *(
                join([getattr(part[name], field.name) for part in parts])
                for field in fields(SiteRuns)
            )
        )
        for name in parts[0]
    }


class _SubsampleMessenger(Messenger):
    """Find plates that draw a random subsample: each run would have other rows."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[Any] = []

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["value"] is None:
            self._found.append(msg)

    def check(self) -> None:
        """Raise a ValueError if there is one that leaves out rows."""
        for msg in self._found:
            size, n = msg["fn"].size, msg["fn"].subsample_size
            if n is not None and n < size:
                raise ValueError(
                    f"The plate {msg['name']!r} draws {n} of its {size} rows at random in each "
                    "run: pass `model` and `guide` all rows, with subsample_size=None."
                )


class _UnobserveMessenger(Messenger):
    """Sample observed sites; deterministic sites and factors are unchanged."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and site_kind(msg) == "observed":
            msg["fn"] = msg["fn"].expand(batch_shape(msg))  # a draw for each observation
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def unobserve(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return a model that samples the sites that `model` observes."""

    def unobserved(*args: Any, **kwargs: Any) -> Any:
        with _UnobserveMessenger():
            return model(*args, **kwargs)

    return unobserved
