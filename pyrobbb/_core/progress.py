"""Progress of fits: a bar for each, or a single one for the stages of a longer computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm

__all__ = ["EpochBar", "bars_named", "epoch_bar", "stages", "stages_reported_to"]

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"

Reporter = Callable[[str], None]


class EpochBar:
    """The progress of one fit, in epochs.

    Parameters
    ----------
    bar : tqdm
    unit : float
        Units of the bar in an epoch.

    Attributes
    ----------
    n : int
        Epochs that are done.
    """

    def __init__(self, bar: Any, unit: float = 1) -> None:
        self._bar, self._unit, self.n = bar, unit, 0

    def update(self, n_epochs: int, postfix: str = "") -> None:
        """Add epochs, and show losses beside the bar."""
        self.n += n_epochs
        self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.update(n_epochs * self._unit)


class _Stages:
    """A bar for several fits, which appears with the first of them."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.left = list(shares.items())
        self.n_stages, self.total = len(shares), sum(shares.values())
        self.done = 0.0
        self.bar: Any = None

    def next(self) -> tuple[str, float]:
        """Return the name and the share of the next stage; of a further one, no share."""
        return self.left.pop(0) if self.left else ("fit", 0.0)

    def begin(self, name: str) -> Any:
        """Return the bar, at the beginning of a stage."""
        words = self.describe(name)
        if self.bar is None:
            self.bar = tqdm(total=self.total, desc=words, bar_format=FORMAT)
        self.bar.set_description_str(words, refresh=False)
        return self.bar

    def describe(self, name: str) -> str:
        """Return the name of the present stage, with its number if there are several."""
        number = self.n_stages - len(self.left)
        return f"{name} ({number} of {self.n_stages})" if self.n_stages > 1 else name

    def end(self, share: float) -> None:
        """Move the bar to the end of a stage, which early stopping may have left before."""
        self.done += share
        if self.bar is not None:
            self.bar.update(self.done - self.bar.n)

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


_stages: ContextVar[_Stages | None] = ContextVar("stages", default=None)
_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)
_name: ContextVar[str] = ContextVar("name", default="fit")


@contextmanager
def stages(shares: Mapping[str, float]) -> Iterator[None]:
    """Show the fits in the block, one after the other, as the stages of a single bar.

    Parameters
    ----------
    shares : mapping of str to float
        Names of the stages, in order, and their parts of the work.
    """
    current = _Stages(shares)
    token = _stages.set(current)
    try:
        yield
    finally:
        _stages.reset(token)
        current.close()


@contextmanager
def stages_reported_to(report: Reporter | None) -> Iterator[None]:
    """Report the beginning of each of several stages, where a bar is not shown, in one line."""
    token = _reporter.set(report)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def bars_named(name: str) -> Iterator[None]:
    """Name the bars of the fits in the block, where they do not belong to `stages`."""
    token = _name.set(name)
    try:
        yield
    finally:
        _name.reset(token)


@contextmanager
def epoch_bar(n_epochs: int, *, is_shown: bool) -> Iterator[EpochBar]:
    """Show the progress of one fit: in a bar of its own, or in that of all `stages`.

    Parameters
    ----------
    n_epochs : int
    is_shown : bool
    """
    current, report = _stages.get(), _reporter.get()
    name, share = (_name.get(), 0.0) if current is None else current.next()
    if current is not None and report is not None and current.n_stages > 1:
        report(current.describe(name))
    if current is None or not is_shown:
        with tqdm(total=n_epochs, desc=name, unit="epoch", disable=not is_shown) as bar:
            yield EpochBar(bar)
        return
    yield EpochBar(current.begin(name), share / max(n_epochs, 1))
    current.end(share)
