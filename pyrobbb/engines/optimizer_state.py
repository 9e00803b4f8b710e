"""The state of any torch optimiser as tensors: its tensors, and the rest as JSON in bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.random_state import seeded

TRIAL_STEPS = 2


class NotStorableError(TypeError):
    """The state of an optimiser holds an object that is neither a number nor a tensor."""


def pack_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser as named tensors.

    Raises
    ------
    NotStorableError
        If it holds anything but tensors, numbers, strings, None, and lists, tuples and dicts of
        these.
    """
    tensors: dict[str, Tensor] = {}
    described = _encode("state_dict()", optimizer.state_dict(), tensors)
    text = json.dumps(described, allow_nan=False).encode()
    return {**tensors, "json": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def unpack_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Restore a state returned by `pack_state`. No code in it is run.

    Raises
    ------
    ValueError
        If it is not such a state.
    """
    try:
        described = json.loads(state["json"].cpu().numpy().tobytes().decode())
        optimizer.load_state_dict(_decode(described, state))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"The state of the optimiser is damaged ({error}).") from error


def check_storable(
    factory: Callable[..., torch.optim.Optimizer], parameters: Sequence[Tensor]
) -> None:
    """Raise unless the state of an optimiser can be stored, by trial steps on copies.

    Raises
    ------
    NotStorableError
        It names what is in the way.
    """
    if factory in (torch.optim.Adam, torch.optim.AdamW):
        return
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    with seeded(0):
        optimizer = factory(copies, lr=1e-3)
        for _ in range(TRIAL_STEPS):
            for copy in copies:
                copy.grad = torch.full_like(copy, 1e-3)
            optimizer.step()
    try:
        pack_state(optimizer)
    except NotStorableError as error:
        raise NotStorableError(
            f"`checkpoint` cannot store the `optimizer` {type(optimizer).__name__}: {error} Pass "
            "another optimizer, or leave `checkpoint` out."
        ) from None


def _encode(where: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Convert to JSON values; tensors are added to a mapping, and referred to by name."""
    if isinstance(value, np.number | np.bool_):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor) and value.layout == torch.strided:
        name = str(len(tensors))
        tensors[name] = value.detach()
        return {"tensor": name}
    if type(value) in (list, tuple):
        parts = [_encode(f"{where}[{i}]", part, tensors) for i, part in enumerate(value)]
        return parts if type(value) is list else {"tuple": parts}
    if isinstance(value, dict):
        items = [
            [_encode(where, key, tensors), _encode(f"{where}[{key!r}]", part, tensors)]
            for key, part in value.items()
        ]
        return {"dict": items}
    raise NotStorableError(
        f"its {where} is a {type(value).__name__}, neither a number nor a dense tensor."
    )


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(part, tensors) for part in content)
    if kind == "dict":
        return {_decode(key, tensors): _decode(part, tensors) for key, part in content}
    raise ValueError(f"The state of the optimiser is damaged (it has a {kind!r}).")
