"""Priors and likelihoods as callables: their arguments, and the type of what they return."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from .._core.messages import first_line, shown

ARGUMENTS = {"prior": ("name", "parameter"), "likelihood": ("output",)}


def check_callable(argument: str, value: Any) -> None:
    """Raise a TypeError unless a prior or likelihood can be called with its arguments.

    Parameters
    ----------
    argument : {"prior", "likelihood"}
    value : callable
    """
    expected = f"`{argument}` must be a callable such as those of pyrobbb.{argument}s"
    if isinstance(value, type):
        raise TypeError(f"{expected}, got {shown(value)}, a class: call it to make an instance.")
    if isinstance(value, torch.distributions.Distribution) or not callable(value):
        raise TypeError(f"{expected}, got {shown(value)}.")
    if type(value).__module__ == "torch.nn.modules.loss":
        raise TypeError(
            f"{expected}, got {type(value).__name__}, a loss: pass a distribution of which it is "
            "the negative log-density, such as likelihoods.Gaussian() for a squared error."
        )
    try:
        signature = inspect.signature(value.forward if isinstance(value, nn.Module) else value)
    except (TypeError, ValueError):  # a builtin
        return
    try:
        signature.bind(*ARGUMENTS[argument])
    except TypeError as error:
        raise TypeError(
            f"`{argument}` must take {len(ARGUMENTS[argument])} argument(s), "
            f"({', '.join(ARGUMENTS[argument])}): {first_line(error)}."
        ) from None


def called(argument: str, where: str, function: Callable[..., Any], *values: Any) -> Any:
    """Call a prior or likelihood; raise a ValueError that names it if it fails."""
    try:
        return function(*values)
    except Exception as error:
        if str(error).startswith("`"):  # a message of this package
            raise
        raise ValueError(
            f"`{argument}` failed for {where}: {type(error).__name__}: {first_line(error)}"
        ) from error


def check_distribution(argument: str, value: Any, where: str, or_none: str = "") -> None:
    """Raise a TypeError unless a value is a distribution of Pyro.

    Parameters
    ----------
    argument : {"prior", "likelihood"}
    value : object
        What it has returned.
    where : str
        For what, for the message.
    or_none : str
        " or None" if that may be returned too.
    """
    if isinstance(value, TorchDistributionMixin):
        return
    name = type(value).__name__
    if isinstance(value, torch.distributions.Distribution):
        raise TypeError(
            f"`{argument}` must return a distribution of Pyro, got torch.distributions' {name} for "
            f"{where}: use pyro.distributions.{name}."
        )
    hint = ""
    if isinstance(value, type):
        hint = ", a class: call it"
    elif callable(value):
        hint = f", a callable: return {argument}({', '.join(ARGUMENTS[argument])})"
    raise TypeError(
        f"`{argument}` must return a distribution{or_none}, got {name} for {where}{hint}."
    )
