"""Checkpoints of a fit, in two folders that are written alternately, so that one is always intact.

Each holds the posterior so far, which `Posterior.load` reads, and the state that the next step
depends on: the state of the optimizer, the noise and the random number generators.
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
from ..storage.folders import remove_leftovers
from ..storage.strict_json import check_fields, prefix_errors
from .fingerprint import difference_between

logger = logging.getLogger(__name__)

NAMES = ("checkpoint-1", "checkpoint-2")
MODE = "mode"
"""Subfolder for the checkpoints of the deterministic fit of ``init="map"``."""
SECONDS = 60.0
"""Default time between checkpoints, in seconds."""
MAX_WRITING_SHARE = 0.05
"""The default time is longer if writing would take more than this share of it."""
FIELDS: dict[str, type | tuple[type, ...]] = {
    "fingerprint": dict,
    "n_done": int,
    "is_over": bool,
    "seconds": float,
}


class EarlierVersionError(ValueError):
    """The checkpoint was written by a version whose fingerprints did not cover the whole fit."""


class Checkpoints:
    """The checkpoints of one fit.

    Parameters
    ----------
    folder : Path
    every : int, optional
        Steps between checkpoints. None: about a minute, or more if they take long to write.
    fingerprint : mapping
        Identifies the fit: checkpoints with a different fingerprint are refused.
    is_vouched : bool
        Whether the digests in the fingerprint are not compared.
    """

    def __init__(
        self,
        folder: Path,
        every: int | None,
        fingerprint: Mapping[str, Any],
        *,
        is_vouched: bool = False,
    ) -> None:
        self._folder, self._every, self._fingerprint = folder, every, fingerprint
        self._is_vouched = is_vouched
        self._next = NAMES[0]
        self._n_done = 0  # at the last checkpoint
        self._written = time.monotonic()
        self._pause = SECONDS

    def is_due(self, n_done: int) -> bool:
        """Return whether a checkpoint is due after `n_done` steps."""
        if self._every is not None:
            return n_done // self._every > self._n_done // self._every
        return time.monotonic() - self._written >= self._pause

    def write(self, state: Mapping[str, Any], chains: Sequence[FittedChain]) -> None:
        """Write a checkpoint; a failure is logged, and the previous checkpoint is kept.

        Parameters
        ----------
        state : mapping
            From `RunState.state_dict`.
        chains : sequence of FittedChain
            As they are now, with the histories of the state.
        """
        began = time.monotonic()
        progress = {name: state[name] for name in FIELDS if name in state}
        try:
            storage.write(
                self._folder / self._next,
                chains,
                extra={"fit": {"fingerprint": self._fingerprint, **progress}},
                tensors=state["tensors"],
            )
        except OSError as error:
            last = f"step {self._n_done}" if self._n_done else "none"
            logger.warning(
                "The checkpoint at step %d could not be written: %s. The fit continues; last "
                "checkpoint: %s.",
                state["n_done"],
                error,
                last,
            )
        else:
            self._next = NAMES[1 - NAMES.index(self._next)]
            logger.debug("Wrote the checkpoint at step %d.", state["n_done"])
        # Also after a failure, so that a full disk is not tried again at each step.
        self.postpone(state["n_done"])
        self._pause = max(SECONDS, (self._written - began) / MAX_WRITING_SHARE)

    def postpone(self, n_done: int) -> None:
        """Count the time and the steps to the next checkpoint from now, after `n_done` steps."""
        self._n_done, self._written = n_done, time.monotonic()

    def latest(
        self, network: BayesianNetwork
    ) -> tuple[dict[str, Any], tuple[FittedChain, ...]] | None:
        """Read the last intact checkpoint, if there is one.

        Parameters
        ----------
        network : BayesianNetwork
            Of the fit. The stored values are loaded into it.

        Returns
        -------
        state : dict
            For `RunState.load_state_dict`.
        chains : tuple of FittedChain

        Raises
        ------
        ValueError
            If the checkpoints belong to another fit, or none of them can be read.
        """
        readable, tensors, damaged = {}, {}, {}
        for name in NAMES:
            try:
                extra, tensors[name] = storage.read_extra(self._folder / name)
                stored = extra.get("fit", {})
                if isinstance(stored, dict) and "outline" in stored:
                    raise EarlierVersionError(
                        f"`checkpoint` {str(self._folder)!r} was written by an earlier version of "
                        "pyrobbb, which recorded less about the fit: delete the folder to start "
                        "from the beginning, or complete the fit with that version."
                    )
                with prefix_errors(f"`checkpoint` {str(self._folder / name)!r} is damaged"):
                    readable[name] = check_fields("'fit'", stored, FIELDS)
            except EarlierVersionError:
                raise
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                damaged[name] = error
        for reason in damaged.values():
            remedy = "the previous one is used" if readable else "there is no other"
            logger.warning("A checkpoint is damaged, and %s: %s", remedy, reason)
        if not readable:
            if damaged:
                raise ValueError(
                    f"`checkpoint` {str(self._folder)!r} holds no checkpoint that can be read. "
                    "Delete the folder to start from the beginning."
                ) from next(iter(damaged.values()))
            return None
        name = max(readable, key=lambda n: (readable[n]["n_done"], readable[n]["is_over"]))
        progress = readable[name]
        difference = difference_between(
            progress["fingerprint"], self._fingerprint, is_vouched=self._is_vouched
        )
        if difference is not None:
            remedy = "" if self._is_vouched else ", or pass resume=True if nothing has changed"
            raise ValueError(
                f"`checkpoint` {str(self._folder)!r} belongs to another fit: {difference}. Choose "
                f"another folder, delete this one to start from the beginning{remedy}."
            )
        chains = storage.read(self._folder / name, network)
        for either in NAMES:
            with suppress(OSError):
                remove_leftovers(self._folder / either)
        self._next = NAMES[1 - NAMES.index(name)]
        self._n_done = progress["n_done"]
        state = {name: value for name, value in progress.items() if name != "fingerprint"}
        histories = [chain.history for chain in chains]
        return {**state, "tensors": tensors[name], "histories": histories}, chains


def stored_seed(folder: Path) -> int | None:
    """Return the seed of the fit whose checkpoints are in a folder, if there are any."""
    for parent in (folder, folder / MODE, folder / "restart-0", folder / "restart-0" / MODE):
        for name in NAMES:
            with suppress(OSError, ValueError, KeyError):  # `latest` reports what is wrong
                return int(storage.read_extra(parent / name)[0]["fit"]["fingerprint"]["seed"])
    return None
