"""Where a fit computes, and in which precision."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from .._core.arrays import supports_float64
from ..model.network import BayesianNetwork

Device = str | int | torch.device
DType = str | torch.dtype

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Placement:
    """Device, dtype and autocast of a fit, checked; None: those of the network.

    Parameters
    ----------
    device : str, int or torch.device, optional
    dtype : {"float32", "float64"} or torch.dtype, optional
    autocast : "bfloat16" or torch.bfloat16, optional
        What the module computes in where its numbers are float32.

    Raises
    ------
    TypeError, ValueError
        If there is no such device here, or the precision is none to fit in.
    """

    device: torch.device | None
    dtype: torch.dtype | None
    autocast: torch.dtype | None

    @classmethod
    def of(
        cls, device: Device | None, dtype: DType | None, autocast: DType | None, like: torch.Tensor
    ) -> Placement:
        """Check what the arguments ask of a network with a parameter `like`."""
        placement = cls(as_device(device), _dtype(dtype), _autocast(autocast))
        where = placement.device or like.device
        own = placement.dtype or like.dtype
        if own == torch.float64 and not supports_float64(where):
            raise ValueError(
                f"`device` {str(where)!r} has no float64, which `dtype` is or the network has: "
                "pass dtype=torch.float32."
            )
        if autocast is not None and own != torch.float32:
            raise ValueError(
                f"`autocast` needs a network in float32, got {own}: pass dtype=torch.float32 too, "
                "or leave `autocast` out."
            )
        if autocast is not None and not torch.amp.is_autocast_available(where.type):
            raise ValueError(
                f"`autocast` is not known to torch on the device {str(where)!r}: leave it out."
            )
        return placement

    def moves(self, network: BayesianNetwork) -> bool:
        """Say whether the network is to be elsewhere, or in another dtype."""
        like = network.bayesian_parameters()[0][1]
        return self.dtype not in (None, like.dtype) or not _is_at(like.device, self.device)

    def copy(self, network: BayesianNetwork) -> BayesianNetwork:
        """Give a copy of the network, moved there."""
        copied = copy.deepcopy(network)
        if self.moves(network):
            copied = copied.to(device=self.device, dtype=self.dtype)
        copied.autocast = self.autocast
        return copied


def _is_at(here: torch.device, wanted: torch.device | None) -> bool:
    if wanted is None:
        return True
    return here.type == wanted.type and wanted.index in (None, here.index)


def as_device(device: Device | None) -> torch.device | None:
    """Give a device by its name; raise if there is none such here."""
    if device is None:
        return None
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`device` must be a device of torch's such as 'cpu' or 'cuda', got {device!r}: "
            f"{reason}"
        ) from None
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"`device` {str(place)!r} cannot be used on this machine: {reason}. Leave `device` "
            "out, or pass 'cpu'."
        ) from None
    return place


def _dtype(dtype: DType | None) -> torch.dtype | None:
    if dtype is None:
        return None
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        fix = (
            "a fit in less precision loses the small steps of its means and scales; "
            "autocast=torch.bfloat16 runs the module alone in it."
        )
        raise ValueError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}: {fix}")
    return found


def _autocast(autocast: DType | None) -> torch.dtype | None:
    if autocast is None:
        return None
    name = str(autocast).removeprefix("torch.")
    if name == "float16":
        raise ValueError(
            "`autocast` must be torch.bfloat16 or None, got float16, in which small gradients "
            "become 0 without a scaling that fit does not do: pass torch.bfloat16."
        )
    if name != "bfloat16":
        raise ValueError(
            f"`autocast` must be torch.bfloat16 or None, got {autocast!r}: it is what the module "
            "computes in; all else is in `dtype`."
        )
    return torch.bfloat16
