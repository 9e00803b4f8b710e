"""A prior that depends on the name of the parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from .._core.messages import shown
from .families import FanInNormal
from .learned import ScaleFamily
from .parameter import Prior


@dataclass(frozen=True)
class ByName:
    """A prior that depends on the parameter's name.

    Parameters
    ----------
    patterns : mapping of str to prior or None
        Shell patterns as in `fnmatch`, matched in order against names such as ``"0.weight"``; the
        first match is used. None: the parameter has a point value.
    default : prior or None
        The prior if no pattern matches.

    Examples
    --------
    >>> ByName({"*.bias": Normal(1.0), "bn*": None}, default=FanInNormal())
    """

    patterns: Mapping[str, Prior | None]
    default: Prior | None = field(default_factory=FanInNormal)

    def __post_init__(self) -> None:
        if not isinstance(self.patterns, Mapping):
            raise TypeError(
                "`patterns` must map name patterns to priors, got "
                f"{type(self.patterns).__name__}: write ByName({{'*.bias': Normal(1.0)}})."
            )
        for pattern, prior in [*self.patterns.items(), ("default", self.default)]:
            if prior is not None and not callable(prior):
                raise TypeError(
                    f"The prior of {pattern!r} must be a callable (name, parameter) -> "
                    f"distribution, or None, got {shown(prior)}."
                )

    def __call__(self, name: str, parameter: Tensor) -> TorchDistribution | None:
        prior = self.choice(name)
        return None if prior is None else prior(name, parameter)

    def choice(self, name: str) -> Prior | None:
        """Return the prior of the parameter with the given name."""
        for pattern, prior in self.patterns.items():
            if fnmatchcase(name, pattern):
                return prior
        return self.default

    def check_names(self, names: Iterable[str]) -> None:
        """Raise a ValueError if a pattern is the first to match none of the parameter names."""
        names = list(names)
        undecided = names
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"`patterns`: {pattern!r} matches no parameter. The parameters are: "
                    f"{', '.join(names)}."
                )
            decided = [name for name in undecided if fnmatchcase(name, pattern)]
            if not decided:
                raise ValueError(
                    f"`patterns`: {pattern!r} never decides, because earlier patterns match all of "
                    "its parameters: put it before them."
                )
            undecided = [name for name in undecided if name not in decided]
        for prior in (*self.patterns.values(), self.default):
            if isinstance(prior, ByName):
                prior.check_names(name for name in names if self.choice(name) is prior)


def scale_family(prior: Prior | None, name: str) -> ScaleFamily | None:
    """Return the prior of a parameter if its scale is learned, otherwise None."""
    while isinstance(prior, ByName):
        prior = prior.choice(name)
    return prior if isinstance(prior, ScaleFamily) and prior.learned else None
