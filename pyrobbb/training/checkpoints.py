"""Checkpoints: a fit on disk, in two folders that are written alternately, so that one is whole.

Each holds the posterior so far, which `Posterior.load` reads, and with it what the next step
depends on: the states of the optimizer, the noise and the random numbers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import storage
from ..fitted import FittedChain
from ..model.network import BayesianNetwork
from ..storage.folders import remove_strays
from ..storage.strict_json import check_fields, prefix_errors

logger = logging.getLogger(__name__)

NAMES = ("checkpoint-1", "checkpoint-2")
SECONDS = 60.0
"""Default time between checkpoints."""
MAX_WRITING_SHARE = 0.05
"""The default is longer where writing would take more than this share of the time."""
FIELDS: dict[str, type | tuple[type, ...]] = {
    "outline": dict,  # the fingerprint
    "n_done": int,
    "is_over": bool,
    "seconds": float,
}


class Checkpoints:
    """The checkpoints of one fit.

    Parameters
    ----------
    folder : Path
    every : int, optional
        Steps between checkpoints. None: a minute, or longer where they take long to write.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        self.folder, self._every = folder, every
        self._next = NAMES[0]
        self._n_done = 0  # at the last checkpoint
        self._written = time.monotonic()
        self._pause = SECONDS

    def is_due(self, n_done: int) -> bool:
        """Return whether it is time for a checkpoint after `n_done` steps."""
        if self._every is not None:
            return n_done // self._every > self._n_done // self._every
        return time.monotonic() - self._written >= self._pause

    def write(
        self,
        fingerprint: Mapping[str, Any],
        state: Mapping[str, Any],
        chains: Sequence[FittedChain],
    ) -> None:
        """Write a checkpoint; a failure is logged, and the previous checkpoint is kept.

        Parameters
        ----------
        fingerprint : mapping
            Of the fit.
        state : mapping
            Of `RunState.state_dict`.
        chains : sequence of FittedChain
            As they are now, with the histories of the state.
        """
        began = time.monotonic()
        progress = {name: state[name] for name in FIELDS if name in state}
        try:
            storage.write(
                self.folder / self._next,
                chains,
                extra={"fit": {"outline": fingerprint, **progress}},
                tensors=state["tensors"],
            )
        except OSError as error:
            kept = f"that of step {self._n_done}" if self._n_done else "none"
            logger.warning(
                "The checkpoint of step %d could not be written: %s. The fit continues; the last "
                "checkpoint is %s.",
                state["n_done"],
                error,
                kept,
            )
        else:
            self._next = NAMES[1 - NAMES.index(self._next)]
            logger.debug("Checkpoint of step %d.", state["n_done"])
        # Also after a failure, so that a full disk is not tried again at each step.
        self._n_done, self._written = state["n_done"], time.monotonic()
        self._pause = max(SECONDS, (self._written - began) / MAX_WRITING_SHARE)

    def latest(
        self, network: BayesianNetwork, fingerprint: Mapping[str, Any]
    ) -> tuple[dict[str, Any], tuple[FittedChain, ...]] | None:
        """Read the last whole checkpoint, if there is one.

        Parameters
        ----------
        network : BayesianNetwork
            Of the fit. The stored values are loaded into it.
        fingerprint : mapping
            Of the fit that is to continue.

        Returns
        -------
        state : dict
            For `RunState.load_state_dict`.
        chains : tuple of FittedChain

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
            remedy = "the previous one is used" if found else "there is no other"
            logger.warning("A checkpoint is damaged, and %s: %s", remedy, fault)
        if not found:
            if damaged:
                raise ValueError(
                    f"`checkpoint` {str(self.folder)!r} has none that can be read. Delete the "
                    "folder to start from the beginning."
                ) from next(iter(damaged.values()))
            return None
        name = max(found, key=lambda own: (found[own]["n_done"], found[own]["is_over"]))
        progress = found[name]
        stored = progress["outline"]
        if odd := first_difference(fingerprint, stored):
            raise ValueError(
                f"`checkpoint` {str(self.folder)!r} is of another fit: its {odd!r} is "
                f"{stored.get(odd)!r}, here {fingerprint.get(odd)!r}. Choose another folder, or "
                "delete it to start from the beginning."
            )
        chains = storage.read(self.folder / name, network)
        for own in NAMES:
            with suppress(OSError):
                remove_strays(self.folder / own)
        self._next = NAMES[1 - NAMES.index(name)]
        self._n_done = progress["n_done"]
        state = {name: value for name, value in progress.items() if name != "outline"}
        histories = [chain.history for chain in chains]
        return {**state, "tensors": tensors[name], "histories": histories}, chains


def stored_seed(folder: Path) -> int | None:
    """Return the seed of the fit whose checkpoints are in a folder, if there are any."""
    for place in (folder, folder / "restart-0"):
        for name in NAMES:
            with suppress(OSError, ValueError, KeyError):  # `latest` reports what is wrong
                return int(storage.read_extra(place / name)[0]["fit"]["outline"]["seed"])
    return None


def first_difference(fingerprint: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first name whose values differ in two fingerprints, if there is one."""
    names = (*fingerprint, *other)
    return next((name for name in names if fingerprint.get(name) != other.get(name)), None)
