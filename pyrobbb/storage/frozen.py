"""Frozen parameters that are not stored: a hash of each is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ..model.frozen import frozen_parameters
from ..model.network import BayesianNetwork

CHUNK = 2**22


def stored_apart(network: BayesianNetwork) -> dict[str, Tensor]:
    """Return the frozen parameters by their names in the state dict, tied ones by all names."""
    frozen = {id(parameter) for parameter in frozen_parameters(network).values()}
    named = network.net.named_parameters(remove_duplicate=False)
    return {name: parameter.detach() for name, parameter in named if id(parameter) in frozen}


def hash_of_tensor(tensor: Tensor) -> Tensor:
    """Return the SHA-256 of dtype, shape and values, 32 bytes as a tensor."""
    hashed = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for part in tensor.detach().contiguous().flatten().split(CHUNK):
        hashed.update(memoryview(part.cpu().view(torch.uint8).numpy()))
    return torch.frombuffer(bytearray(hashed.digest()), dtype=torch.uint8)


def with_frozen(
    network: BayesianNetwork, stored: Mapping[str, Tensor], hashes: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the stored tensors of a module together with its own frozen parameters.

    Parameters
    ----------
    network : BayesianNetwork
    stored, hashes : mapping of str to Tensor
        Tensors of the module that are stored, and hashes of those that are not.

    Raises
    ------
    ValueError
        If the network has other parameters, or they have other values.
    """
    own = dict(network.net.named_parameters(remove_duplicate=False))
    for name, expected in hashes.items():
        if name not in own:
            raise ValueError(f"its net has no parameter {name!r}, which was frozen in the fit.")
        if not torch.equal(hash_of_tensor(own[name]), expected.cpu()):
            raise ValueError(
                f"its parameter {name!r} differs from that of the fit, in which it was frozen and "
                "not stored: load the weights of the fit first."
            )
    return {**stored, **{name: own[name].detach() for name in hashes}}
