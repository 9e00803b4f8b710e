"""Observations that a model masks: they are left out of the groups of a tree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.arrays import ArrayLike
from .datatree import Variables
from .pyro_program import Program, Runs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CountedObservations:
    """The observations of a site that count in the density of the model.

    They lie along one dimension of the site, if its mask depends on no other; otherwise the
    dimensions of the batch are flattened.

    Attributes
    ----------
    name : str
    counts : Tensor of shape (*batch,)
        Whether an observation counts.
    """

    name: str
    counts: Tensor

    @cached_property
    def axis(self) -> int | None:
        """The dimension of the batch that the mask depends on; None if it is not a single one."""
        for axis in range(self.counts.dim()):
            along = self._along(axis)
            shape = [1] * self.counts.dim()
            shape[axis] = -1
            if bool((along.reshape(shape) == self.counts).all()):
                return axis
        return None

    @cached_property
    def index(self) -> Tensor:
        """Positions of the observations, along the dimension or in the flattened batch."""
        counts = self.counts.flatten() if self.axis is None else self._along(self.axis)
        return counts.nonzero()[:, 0]

    def _along(self, axis: int) -> Tensor:
        return (
            self.counts.movedim(axis, 0).flatten(1).any(1) if self.counts.dim() > 1 else self.counts
        )

    def select(self, values: Tensor, n_lead: int) -> Tensor:
        """Return the values of these observations.

        Parameters
        ----------
        values : Tensor of shape (*lead, *batch, *event)
        n_lead : int
        """
        index, axis = self.index.to(values.device), n_lead
        if self.axis is None:
            values = values.flatten(n_lead, n_lead + self.counts.dim() - 1)
        else:
            axis += self.axis
        return values.index_select(axis, index)

    def dims(self, names: Sequence[str], used: set[str]) -> list[str]:
        """Return the names of the dimensions after selection.

        Parameters
        ----------
        names : sequence of str
            The names before it.
        used : set of str
            Names of dimensions of other variables.
        """
        n = self.counts.dim()
        names = [*names, *(f"{self.name}_dim_{i}" for i in range(len(names), n))]
        if self.axis is None:
            return [f"{self.name}_dim_0", *names[n:]]
        selected = names[self.axis]
        if selected in used:  # it has another length there
            selected = f"{self.name}_{selected}"
        return [*names[: self.axis], selected, *names[self.axis + 1 :]]

    def labels(self, given: Sequence[Any] | None, origin: int | None) -> list[Any]:
        """Return the labels of the selected dimension: those given for all of it, or numbers.

        Parameters
        ----------
        given : sequence, optional
        origin : int, optional
            The first number. None: ArviZ's setting.
        """
        import arviz_base

        index: list[int] = self.index.tolist()
        if given is not None and self.axis is not None:
            return [given[i] for i in index]
        if origin is None:
            origin = int(arviz_base.rcParams["data.index_origin"])
        return [origin + i for i in index]


Counted = Mapping[str, CountedObservations]
"""The observations that count, of the sites of which some do not."""


def counted_observations(
    program: Program | None, runs: Runs
) -> tuple[dict[str, CountedObservations], set[str]]:
    """Return the observations that count, of sites with a mask, and log what is left out.

    Parameters
    ----------
    program : Program or None
    runs : Runs
        Runs at the posterior draws.

    Returns
    -------
    counted : dict of str to CountedObservations
    varying : set of str
        Sites with another mask in each draw.
    """
    counted: dict[str, CountedObservations] = {}
    varying: set[str] = set()
    if program is None:
        return counted, varying
    for name in program.observed:
        counts = program.counts[name]
        if name in runs and bool((runs[name].counts != counts).any()):
            logger.warning("No log-likelihood of %r: its mask differs between draws.", name)
            varying.add(name)
        elif not bool(counts.all()):
            logger.warning(
                "%d of %d observations of %r are left out: the model masks them.",
                int((~counts).sum()),
                counts.numel(),
                name,
            )
            counted[name] = CountedObservations(name, counts)
    return counted, varying


def select(variables: Variables, counted: Counted, n_lead: int) -> dict[str, ArrayLike]:
    """Return variables without the observations that do not count; others are unchanged.

    Parameters
    ----------
    variables : mapping of str to Tensor of shape (*lead, *batch, *event)
    counted : mapping of str to CountedObservations
    n_lead : int
    """
    selected = {}
    for name, value in variables.items():
        observations = counted.get(name)
        shape = np.shape(value)[n_lead:]
        if observations is None or shape[: observations.counts.dim()] != observations.counts.shape:
            selected[name] = value
        elif len(observations.index):
            selected[name] = observations.select(torch.as_tensor(value), n_lead)
    return selected
