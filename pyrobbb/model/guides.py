"""The guides that are chosen by name, made and recognised in one place."""

from __future__ import annotations

from typing import Any, Literal, TypeGuard, get_args

from pyro.infer.autoguide import AutoNormal

from .._core.arrays import ArrayLike
from .auto_normal import auto_normal
from .dense_guide import DenseGuide
from .flat_guide import FlatGuide
from .low_rank import LowRankGuide
from .mean_field import MeanFieldGuide
from .network import BayesianNetwork

__all__ = [
    "FLAT_GUIDES",
    "GUIDES",
    "STORED_GUIDES",
    "DenseGuide",
    "FlatGuide",
    "GuideName",
    "LowRankGuide",
    "MeanFieldGuide",
    "auto_normal",
    "has_sampler",
    "is_flat",
    "kind_of",
    "named_guide",
]

GuideName = Literal["mean_field", "low_rank", "auto_normal"]
GUIDES: tuple[str, ...] = get_args(GuideName)
STORED_GUIDES = (*GUIDES, DenseGuide.kind)
"""The guides that can be saved: those that `fit` makes by name, and that of a last layer."""

FLAT_GUIDES = {guide.kind: guide for guide in (MeanFieldGuide, LowRankGuide)}


def is_flat(guide: Any) -> TypeGuard[FlatGuide]:
    """Return whether a guide is one of pyrobbb's over a flat vector, and not a subclass of one.

    A subclass may draw differently, which its parameters do not show.
    """
    return type(guide) in FLAT_GUIDES.values()


def has_sampler(guide: Any) -> TypeGuard[FlatGuide]:
    """Return whether the sampler of a guide draws what the guide draws."""
    return is_flat(guide) or type(guide) is DenseGuide


def kind_of(guide: Any) -> str | None:
    """Return the name that selects guides of this kind; None for a custom guide."""
    if has_sampler(guide):
        return guide.kind
    return "auto_normal" if isinstance(guide, AutoNormal) else None


def named_guide(
    name: str,
    network: BayesianNetwork,
    x: ArrayLike | None = None,
    *,
    rank: int | None = None,
    init_scale: float | None = None,
) -> Any:
    """Return a new guide by name.

    Parameters
    ----------
    name : {"mean_field", "low_rank", "auto_normal"}
    network : BayesianNetwork
    x : array-like of shape (n, ...), optional
        Any input, for custom likelihoods with latent sites.
    rank : int, optional
        Of a `LowRankGuide`; None: its default.
    init_scale : float, optional
        As for `MeanFieldGuide`.
    """
    if name == "low_rank":
        return LowRankGuide(network, rank, x, init_scale=init_scale)
    if name == "mean_field":
        return MeanFieldGuide(network, x, init_scale=init_scale)
    return auto_normal(network, init_scale=init_scale)
