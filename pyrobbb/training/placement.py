"""Placement: device and precision of a fit."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from .._core.arrays import supports_float64
from .._core.messages import shown
from ..model.frozen import copy_without_frozen
from ..model.network import BayesianNetwork

Device = str | int | torch.device
DType = str | torch.dtype

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Placement:
    """Device, dtype and autocast of a fit. None: those of the network.

    Parameters
    ----------
    device : torch.device, optional
    dtype : torch.dtype, optional
    autocast : torch.dtype, optional
        Dtype of the module's forward and backward pass where `torch.autocast` lowers it.
    """

    device: torch.device | None
    dtype: torch.dtype | None
    autocast: torch.dtype | None

    @classmethod
    def of(
        cls, device: Device | None, dtype: DType | None, autocast: DType | None, like: torch.Tensor
    ) -> Placement:
        """Return the placement of a network with a parameter `like`, from the arguments of `fit`.

        Raises
        ------
        TypeError, ValueError
            If the device is not available, or the precision is not supported.
        """
        placement = cls(as_device(device), _as_dtype(dtype), _as_autocast(autocast))
        device = placement.device or like.device
        dtype = placement.dtype or like.dtype
        if dtype == torch.float64 and not supports_float64(device):
            raise ValueError(
                f"`device` {str(device)!r} does not support float64, the dtype of the fit: pass "
                "dtype=torch.float32."
            )
        if autocast is not None and dtype != torch.float32:
            raise ValueError(
                f"`autocast` needs a network in float32, got {dtype}: pass dtype=torch.float32 "
                "too, or leave `autocast` out."
            )
        if autocast is not None and not torch.amp.is_autocast_available(device.type):
            raise ValueError(
                f"`autocast` is not supported by torch on the device {str(device)!r}: leave it out."
            )
        return placement

    def moves(self, network: BayesianNetwork) -> bool:
        """Return whether the network must be moved to another device or dtype."""
        like = network.bayesian_parameters()[0][1]
        return self.dtype not in (None, like.dtype) or not _is_on(like.device, self.device)

    def copy(self, network: BayesianNetwork) -> BayesianNetwork:
        """Return a copy of the network with this device, dtype and autocast.

        Frozen parameters are shared, unless they are moved.
        """
        if not self.moves(network):
            copied = copy_without_frozen(network, [network])
        else:
            copied = copy.deepcopy(network)
            # Not `to(dtype)`, which would discard the imaginary part of complex buffers. Converted
            # before it is moved, because the device may not support the old dtype.
            if self.dtype is not None:
                copied = copied.double() if self.dtype == torch.float64 else copied.float()
            copied = copied.to(device=self.device)
        copied.autocast = self.autocast
        return copied


def _is_on(device: torch.device, requested: torch.device | None) -> bool:
    if requested is None:
        return True
    return device.type == requested.type and requested.index in (None, device.index)


def as_device(device: Device | None) -> torch.device | None:
    """Return the device with the given name; raise if it is not available."""
    if device is None:
        return None
    try:
        requested = torch.device(device)
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`device` must be a torch device such as 'cpu' or 'cuda', got {shown(device)}: "
            f"{reason}"
        ) from None
    try:
        torch.empty(0, device=requested)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"`device` {str(requested)!r} cannot be used on this machine: {reason}. Leave `device` "
            "out, or pass 'cpu'."
        ) from None
    return requested


def _as_dtype(dtype: DType | None) -> torch.dtype | None:
    if dtype is None:
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(
            f"`dtype` must be torch.float32 or torch.float64, got {shown(dtype)}: lower precision "
            "loses small updates of means and scales. Pass autocast=torch.bfloat16 to run only the "
            "module in it."
        )
    return DTYPES[name]


def _as_autocast(autocast: DType | None) -> torch.dtype | None:
    if autocast is None:
        return None
    name = str(autocast).removeprefix("torch.")
    if name == "float16":
        raise ValueError(
            "`autocast` must be torch.bfloat16 or None, got float16, in which small gradients "
            "become 0 without loss scaling, which is not supported: pass torch.bfloat16."
        )
    if name != "bfloat16":
        raise ValueError(
            f"`autocast` must be torch.bfloat16 or None, got {shown(autocast)}: pass other "
            "precisions as `dtype`."
        )
    return torch.bfloat16
