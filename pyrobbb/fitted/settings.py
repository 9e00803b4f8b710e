"""FitSettings: how a posterior was fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, eq=False)
class FitSettings(Mapping[str, Any]):
    """The settings of one fit, kept with its result and stored with it.

    Also a read-only mapping of the fields that are not None and of `notes`; it is equal to a dict
    with the same items.

    Attributes
    ----------
    engine : str
        The engine that took the last step: ``"svi"``, ``"fused"`` or ``"compiled"``.
    objective : str
        ``"trace"``, ``"mean_field"``, or the class of a custom ELBO.
    kl_weight : str or float
        ``"custom"`` for a callable.
    kl_search : mapping
        What ``kl_weight="auto"`` has tried: ``kl_weight``, and for each the mean ``log_density`` of
        the held-out rows, in nats, with the ``standard_error`` of its difference from the highest;
        and the weight ``chosen``.
    kl_warmup : float
    epochs, batch_size, n_data, n_particles : int
    lr : float
        The highest learning rate of the schedule.
    seed : int
        Seed of this chain. Chain r of a fit with restarts has the seed of the fit plus r.
    is_weighted : bool
        Whether the fit had a `sample_weight`.
    init : str
        ``"map"`` if the fit began at a mode of the posterior.
    autocast : str
        Such as ``"bfloat16"``.
    n_processes : int
        Number of processes that fitted together, if more than one.
    processes : str
        ``"same_noise"`` or ``"own_noise"``; see `pyrobbb.fit`.
    stacking_weight : float
        Weight of the chain in the predictions of a posterior of several chains, on a scale on which
        their mean is 1. Without it, 1.
    is_interrupted : bool
        True if Ctrl-C has ended the fit.
    notes : mapping of str to object
        Further items, from a training loop other than `pyrobbb.fit`.
    """

    engine: str | None = None
    objective: str | None = None
    kl_weight: str | float | None = None
    kl_search: Mapping[str, Any] | None = None
    kl_warmup: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    n_data: int | None = None
    lr: float | None = None
    n_particles: int | None = None
    seed: int | None = None
    is_weighted: bool | None = None
    init: str | None = None
    autocast: str | None = None
    n_processes: int | None = None
    processes: str | None = None
    stacking_weight: float | None = None
    is_interrupted: bool | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, items: Mapping[str, Any]) -> FitSettings:
        """Return settings with the given items; items that are not fields become notes."""
        if isinstance(items, FitSettings):
            return items
        known = {name: items[name] for name in _NAMES if name in items}
        notes = {name: value for name, value in items.items() if name not in _NAMES}
        return cls(**known, notes=notes)

    def _items(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _NAMES}
        return {name: v for name, v in values.items() if v is not None} | dict(self.notes)

    def __getitem__(self, name: str) -> Any:
        return self._items()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def __len__(self) -> int:
        return len(self._items())

    def __repr__(self) -> str:
        items = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"FitSettings({items})"


_NAMES = tuple(f.name for f in fields(FitSettings) if f.name != "notes")
