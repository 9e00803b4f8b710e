"""The part of a module's output that the likelihood is applied to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from .._core.messages import first_line, shown

OutputOf = str | Callable[[Any], Tensor]
"""A key or attribute of a module's output, or a function of the output."""


class OutputError(ValueError):
    """The output of a module does not have the part that the likelihood needs."""


@dataclass(frozen=True)
class Selection:
    """Takes the part of a module's output that the likelihood is applied to.

    Parameters
    ----------
    part : str or callable
    """

    part: OutputOf

    def __post_init__(self) -> None:
        if not isinstance(self.part, str) and not callable(self.part):
            raise TypeError(
                "`output` must be the name of a part of the module's output or a function of it, "
                f"got {shown(self.part)}."
            )

    @classmethod
    def of(cls, output: OutputOf) -> Selection:
        """Return the selection for the argument `output` of a network; a selection as it is."""
        return output if isinstance(output, Selection) else cls(output)

    def __call__(self, output: Any) -> Any:
        """Return the part."""
        if not isinstance(self.part, str):
            try:
                return self.part(output)
            except (KeyError, IndexError, AttributeError, TypeError) as error:
                raise OutputError(
                    f"`output` fails for the network's output, {kind_of_output(output)}: "
                    f"{type(error).__name__}: {first_line(error)}."
                ) from error
        if isinstance(output, Mapping) and self.part in output:
            return output[self.part]
        if not isinstance(output, Mapping | Tensor) and hasattr(output, self.part):
            return getattr(output, self.part)
        raise OutputError(
            f"`output` is {self.part!r}, but the network returns {kind_of_output(output)}."
        )


def kind_of_output(output: Any) -> str:
    """Return what a module has returned in words, for messages."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    kind = type(output).__name__
    names = names_of(output)
    return f"a {kind} of {', '.join(names)}" if names else f"a {kind}"


def names_of(output: Any) -> list[str]:
    """Return the names of the parts of a mapping, a dataclass or a named tuple."""
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if is_dataclass(output):
        return [field.name for field in fields(output)]
    return list(getattr(output, "_fields", ()))


def remedy_for(output: Any) -> str:
    """Return how to choose the part of an output that is not a tensor, for messages."""
    if names := names_of(output):
        return f" Choose {' or '.join(names)}: BayesianNetwork(..., output={names[0]!r})."
    if isinstance(output, tuple | list):
        return " Choose a part: BayesianNetwork(..., output=lambda parts: parts[0])."
    return ""
