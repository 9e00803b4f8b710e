"""The sample sites of a Pyro trace: their kinds, and the names of their dimensions."""

from __future__ import annotations

from typing import Any, Literal

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

Site = Any
"""A node of a Pyro trace: a dict with the keys ``fn``, ``value``, ``infer`` and others."""

Kind = Literal["latent", "observed", "deterministic", "factor"]


def sample_sites(trace: poutine.Trace) -> dict[str, Site]:
    """Return the sample sites of a trace by name, without those of subsampling plates."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def site_kind(site: Site) -> Kind:
    """Return the kind of a sample site."""
    if site["infer"].get("_deterministic"):
        return "deterministic"
    if isinstance(site["fn"], dist.Unit):
        return "factor"
    return "observed" if site["is_observed"] else "latent"


def batch_shape(site: Site) -> torch.Size:
    """Return the shape of a site's log-density, to which an observed value may add dimensions."""
    value, fn = site["value"], site["fn"]
    return torch.broadcast_shapes(fn.batch_shape, value.shape[: value.dim() - fn.event_dim])


def plate_depth(site: Site) -> int:
    """Return the number of batch dimensions that a site may use, its plates included."""
    plates = [-frame.dim for frame in site["cond_indep_stack"] if frame.vectorized]
    return max([len(batch_shape(site)), *plates])


def counts(site: Site) -> Tensor:
    """Return which elements of a site count in the log-density: all but masked ones.

    The result has the shape of the log-density. An event of several elements counts unless all of
    them are masked.
    """
    masks = [m for m in (site["mask"], _mask_of(site["fn"])) if m is not None]
    counted = torch.ones((), dtype=torch.bool, device=site["value"].device)
    for mask in masks:
        counted = counted & torch.as_tensor(mask, dtype=torch.bool, device=counted.device)
    return counted.expand(batch_shape(site))


def _mask_of(fn: Any) -> Tensor | bool:
    """Return the mask of a distribution, which broadcasts to its batch shape."""
    if isinstance(fn, dist.MaskedDistribution):
        return _mask_of(fn.base_dist) & fn._mask
    if isinstance(fn, dist.ExpandedDistribution):
        return _mask_of(fn.base_dist)
    if isinstance(fn, torch.distributions.Independent):
        mask, n = _mask_of(fn.base_dist), fn.reinterpreted_batch_ndims
        if isinstance(mask, Tensor) and n:
            return mask.expand(fn.base_dist.batch_shape).flatten(-n).any(-1)
        return mask
    return True


def dimension_names(name: str, site: Site) -> list[str]:
    """Return the names of a site's dimensions.

    Dimensions of plates have the names of the plates, the last ones those in
    ``infer={"event_dims": [...]}``, and the remaining ones ``<name>_dim_<i>``.
    """
    shape = site["value"].shape
    n_event = site["fn"].event_dim
    if site_kind(site) == "deterministic" and n_event == len(shape):
        n_event = 0  # By default, pyro.deterministic makes all dimensions event dimensions.
    names = [f"{name}_dim_{i}" for i in range(len(shape))]
    for frame in site["cond_indep_stack"]:
        axis = len(shape) - n_event + (frame.dim or 0)
        if frame.vectorized and axis >= 0 and shape[axis] == frame.size:
            names[axis] = frame.name
    event_dims = list(site["infer"].get("event_dims", []))
    names[len(names) - len(event_dims) :] = event_dims
    return names
