"""How far a fit is, on disk: two folders take turns, so that one is whole at any moment.

Each holds the posterior so far, which `Posterior.load` reads, and with it what the next step
depends on: state of the optimiser, of the noise and of the random numbers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import storage
from ..model.network import BayesianNetwork
from ..posterior.posterior import Posterior
from ..storage.folders import remove_strays
from ..storage.strict_json import check_fields, prefix_errors

logger = logging.getLogger(__name__)

NAMES = ("checkpoint-1", "checkpoint-2")
SECONDS = 60.0
"""Between checkpoints, unless told otherwise;"""
SHARE = 0.05
"""longer where writing them would take more than this part of the time."""
FIELDS: dict[str, type | tuple[type, ...]] = {
    "outline": dict,
    "n_done": int,
    "is_over": bool,
    "seconds": float,
}


@dataclass(frozen=True)
class Progress:
    """How far a fit is.

    Attributes
    ----------
    outline : dict
        Of the fit: what must be the same for it to go on.
    n_done : int
        Steps taken.
    is_over : bool
    seconds : float
        That it has taken.
    tensors : dict of str to Tensor
        What the next step depends on.
    chains : list of Posterior
        The fits so far, side by side.
    """

    outline: dict[str, Any]
    n_done: int
    is_over: bool
    seconds: float
    tensors: dict[str, Tensor]
    chains: list[Posterior]


class Checkpoints:
    """The checkpoints of one fit.

    Parameters
    ----------
    folder : path
    every : int, optional
        Steps between them. None: a minute, or more where they take long.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        self.folder, self._every = folder, every
        self._next = NAMES[0]
        self._n_done = 0  # of the last that has been written
        self._written = time.monotonic()
        self._pause = SECONDS

    def is_due(self, n_done: int) -> bool:
        """Say whether it is time for one."""
        if self._every is not None:
            return n_done // self._every > self._n_done // self._every
        return time.monotonic() - self._written >= self._pause

    def write(self, progress: Progress) -> None:
        """Write down how far the fit is; a failure is told, and the checkpoint before it kept."""
        began = time.monotonic()
        extra = {name: getattr(progress, name) for name in FIELDS}
        try:
            storage.write(
                self.folder / self._next,
                [own.parts() for own in progress.chains],
                extra={"fit": extra},
                tensors=progress.tensors,
            )
        except OSError as error:
            kept = f"that of step {self._n_done}" if self._n_done else "none"
            logger.warning(
                "The checkpoint of step %d could not be written: %s. The fit goes on; the last "
                "checkpoint is %s.",
                progress.n_done,
                error,
                kept,
            )
        else:
            self._next = NAMES[1 - NAMES.index(self._next)]
            logger.debug("Checkpoint of step %d.", progress.n_done)
        # Counted also if it failed: a full disk is not asked again at each step.
        self._n_done, self._written = progress.n_done, time.monotonic()
        self._pause = max(SECONDS, (self._written - began) / SHARE)

    def latest(self, network: BayesianNetwork, outline: Mapping[str, Any]) -> Progress | None:
        """Read the last whole checkpoint, if there is one.

        Parameters
        ----------
        network : BayesianNetwork
            That is fitted; it is filled with the stored values.
        outline : mapping
            Of the fit that is to go on.

        Raises
        ------
        ValueError
            If the checkpoints are of another fit, or none of them can be read.
        """
        found, tensors, damaged = {}, {}, {}
        for name in NAMES:
            try:
                extra, tensors[name] = storage.read_extra(self.folder / name)
                with prefix_errors(f"`checkpoint` {str(self.folder / name)!r} is damaged"):
                    found[name] = check_fields("'fit'", extra.get("fit", {}), FIELDS)
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                damaged[name] = error
        for fault in damaged.values():
            before = "the one before it is used" if found else "there is no other"
            logger.warning("A checkpoint is damaged, and %s: %s", before, fault)
        if not found:
            if damaged:
                raise ValueError(
                    f"`checkpoint` {str(self.folder)!r} holds none that can be read. Delete the "
                    "folder to begin anew."
                ) from next(iter(damaged.values()))
            return None
        name = max(found, key=lambda own: (found[own]["n_done"], found[own]["is_over"]))
        fit = found[name]
        if odd := difference(outline, fit["outline"]):
            raise ValueError(
                f"`checkpoint` {str(self.folder)!r} is of another fit: its {odd!r} is "
                f"{fit['outline'].get(odd)!r}, here {outline.get(odd)!r}. Take another folder, or "
                "delete it to begin anew."
            )
        chains = [Posterior(*parts) for parts in storage.read(self.folder / name, network)]
        for own in NAMES:
            with suppress(OSError):
                remove_strays(self.folder / own)
        self._next = NAMES[1 - NAMES.index(name)]
        self._n_done = fit["n_done"]
        return Progress(**fit, tensors=tensors[name], chains=chains)


def stored_seed(folder: Path) -> int | None:
    """Give the seed of the fit whose checkpoints a folder holds, if it holds any."""
    for place in (folder, folder / "restart-0"):
        for name in NAMES:
            with suppress(OSError, ValueError, KeyError):  # what is wrong is said by `latest`
                return int(storage.read_extra(place / name)[0]["fit"]["outline"]["seed"])
    return None


def difference(outline: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Give the name of the first thing in which two fits differ, if there is one."""
    return next((n for n in (*outline, *other) if outline.get(n) != other.get(n)), None)
