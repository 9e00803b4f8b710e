"""A Pyro program, run for many draws: at once in a plate around it, or one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

logger = logging.getLogger(__name__)

MOST_NUMBERS = 2**24
"""In all sites of the draws that are run at once: some hundred megabytes."""


@dataclass(frozen=True, eq=False)
class SiteRuns:
    """What a sample site gave in each run.

    Attributes
    ----------
    values : Tensor of shape (n, *site)
    log_prob : Tensor of shape (n, *batch)
        Before the scale of subsampling plates.
    total : Tensor of shape (n,)
        With it, and summed, in float64.
    """

    values: Tensor
    log_prob: Tensor
    total: Tensor


Runs = dict[str, SiteRuns]


class Program:
    """A model or a guide, with the arguments that it is run with.

    Parameters
    ----------
    program : callable
    args, kwargs

    Attributes
    ----------
    latent, deterministic : list of str
        Names of sites.
    observed : dict of str to Tensor
        The observations.
    dims : dict of str to list of str
        Names of the dimensions of each site: its plates, then what ``infer={"event_dims": [...]}``
        says, else ``<site>_dim_<i>``.
    """

    def __init__(
        self,
        program: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._program, self._args, self._kwargs = program, tuple(args), dict(kwargs or {})
        self._trace_once(program)  # an autoguide makes its parameters when it first runs
        self._once = _sample_sites(self._trace_once(program))
        kinds = {name: _kind(site) for name, site in self._once.items()}
        self.latent = [name for name, kind in kinds.items() if kind == "latent"]
        self.deterministic = [name for name, kind in kinds.items() if kind == "deterministic"]
        self.observed = {
            name: self._once[name]["value"] for name, kind in kinds.items() if kind == "observed"
        }
        self.dims = {name: _dims(name, site) for name, site in self._once.items()}
        self._n_plates = max((_depth(site) for site in self._once.values()), default=0)
        self._is_vectorised = True

    def sort(self, draws: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Bring draws to the shapes of their sites, and part latent from observed ones.

        Singleton dimensions that Pyro's `Predictive` leaves in the place of plates go; so do
        deterministic sites, which can be computed again. Names of no site count as latent.
        """
        latent, observed = {}, {}
        for name, value in draws.items():
            site = self._once.get(name)
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
            Values of latent sites; those without are drawn.
        """
        draws = {name: value for name, value in (draws or {}).items() if name in self._once}
        each = sum(site["value"].numel() for site in self._once.values())
        block = max(MOST_NUMBERS // max(each, 1), 1)
        parts = []
        for start in range(0, n, block):
            some = {name: value[start : start + block] for name, value in draws.items()}
            parts.append(self._run_block(min(block, n - start), some))
        return {
            name: SiteRuns(*(torch.cat([getattr(part[name], f) for part in parts]) for f in FIELDS))
            for name in parts[0]
        }

    def _run_block(self, n: int, draws: Mapping[str, Tensor]) -> Runs:
        if self._is_vectorised:
            try:
                runs = self._run_at_once(n, draws)
                self._check(runs)
            except Exception as error:  # whatever a program that takes one draw at a time raises
                self._is_vectorised = False
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                logger.info("Draws run one by one: the program cannot be vectorised (%s)", reason)
            else:
                return runs
        each = [self._run_once({name: value[i] for name, value in draws.items()}) for i in range(n)]
        return {
            name: SiteRuns(*(torch.stack([getattr(one[name], f) for one in each]) for f in FIELDS))
            for name in each[0]
        }

    def _run_once(self, values: Mapping[str, Tensor]) -> Runs:
        trace = self._trace_once(poutine.condition(self._program, data=dict(values)))
        trace.compute_log_prob()
        return {
            name: SiteRuns(
                site["value"], site["unscaled_log_prob"], site["log_prob"].double().sum()
            )
            for name, site in _sample_sites(trace).items()
        }

    def _run_at_once(self, n: int, draws: Mapping[str, Tensor]) -> Runs:
        """Run the program in a plate outside of all of its own."""
        data = {}
        for name, value in draws.items():
            n_batch = len(self._once[name]["fn"].batch_shape)
            pads = (1,) * (self._n_plates - n_batch)
            data[name] = value.reshape((n, *pads, *value.shape[1:]))
        program = poutine.condition(self._program, data=data)
        with (
            poutine.block(),
            poutine.trace() as tracer,
            pyro.plate("_draws", n, dim=-1 - self._n_plates),
        ):
            program(*self._args, **self._kwargs)
        tracer.trace.compute_log_prob()
        runs = {}
        for name, site in _sample_sites(tracer.trace).items():
            once = self._once[name]
            n_batch = len(once["fn"].batch_shape)
            lead = (n, *(1,) * (self._n_plates - n_batch))
            batch, shape = once["fn"].batch_shape, once["value"].shape
            value = site["value"]
            if value.numel() != n * shape.numel():  # it is the same for all draws
                value = value.expand((*lead, *shape))
            runs[name] = SiteRuns(
                value.reshape((n, *shape)),
                site["unscaled_log_prob"].expand((*lead, *batch)).reshape((n, *batch)),
                site["log_prob"].double().expand((*lead, *batch)).reshape((n, -1)).sum(1),
            )
        if runs.keys() != self._once.keys():
            raise ValueError("other sites than in a single run")
        return runs

    def _check(self, runs: Runs) -> None:
        """Raise unless the first run gives what it gives alone."""
        auxiliary = [n for n, site in self._once.items() if site["infer"].get("is_auxiliary")]
        if auxiliary:  # an autoguide: Pyro's own, which it vectorises itself
            return
        latent = {name: runs[name].values[0] for name in self.latent}
        alone = self._run_once(latent)
        for name in [*self.latent, *self.observed, *self.deterministic]:
            for f in ("values", "log_prob"):
                if name in self.observed and f == "values":
                    continue
                mine, its = getattr(runs[name], f)[0], getattr(alone[name], f)
                if not torch.allclose(mine.double(), its.double(), 1e-3, 1e-4, equal_nan=True):
                    raise ValueError(f"{name!r} comes out different")

    def _trace_once(self, program: Callable[..., Any]) -> poutine.Trace:
        with poutine.block():
            return poutine.trace(program).get_trace(*self._args, **self._kwargs)


FIELDS = ("values", "log_prob", "total")


class _Unobserved(Messenger):
    """Draws observed sites; deterministic ones and factors stay what they are."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and _kind(msg) == "observed":
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def unobserved(model: Callable[..., Any]) -> Callable[..., Any]:
    """Give a model that draws its observed sites, from the prior or the draws it is given."""

    def program(*args: Any, **kwargs: Any) -> Any:
        with _Unobserved():
            return model(*args, **kwargs)

    return program


def _sample_sites(trace: poutine.Trace) -> dict[str, Any]:
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def _kind(site: Any) -> str:
    if site["infer"].get("_deterministic"):
        return "deterministic"
    if isinstance(site["fn"], dist.Unit):
        return "factor"
    return "observed" if site["is_observed"] else "latent"


def _depth(site: Any) -> int:
    """Give how many dimensions to the left of its event a site may use."""
    frames = [-frame.dim for frame in site["cond_indep_stack"] if frame.vectorized]
    return max([len(site["fn"].batch_shape), *frames])


def _dims(name: str, site: Any) -> list[str]:
    shape = site["value"].shape
    n_event = site["fn"].event_dim
    if _kind(site) == "deterministic" and n_event == len(shape):
        n_event = 0  # by default, pyro.deterministic calls all of a value an event
    names = [f"{name}_dim_{i}" for i in range(len(shape))]
    for frame in site["cond_indep_stack"]:
        axis = len(shape) - n_event + (frame.dim or 0)
        if frame.vectorized and axis >= 0 and shape[axis] == frame.size:
            names[axis] = frame.name
    own = list(site["infer"].get("event_dims", []))
    names[len(names) - len(own) :] = own
    return names
