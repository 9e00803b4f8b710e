"""Posteriors that the tests of storage save, and functions that edit their folders."""

import contextlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import posterior_of

from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, fit, likelihoods, mlp, priors
from pyrobbb.fitted.history import History
from pyrobbb.storage.layout import hash_of_header

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = np.sin(X.sum(1, keepdims=True))

CASES = {
    "defaults": {},
    "mixture": {"prior": priors.ScaleMixture(0.25, 1.5, 0.01), "guide": "auto_normal"},
    "by name": {
        "prior": priors.ByName({"*.bias": None, "0.*": priors.Laplace(0.3)}, priors.StudentT(4.0)),
        "likelihood": likelihoods.StudentT(df=5.0, noise_median=0.3),
    },
    "classes": {
        "net": mlp(3, [5, 4], 3, "tanh", seed=0),
        "likelihood": likelihoods.Categorical(),
        "y": np.arange(40) % 3,
    },
    "columns": {
        "net": mlp(3, [5], 2, seed=0),
        "likelihood": likelihoods.Gaussian(noise_median=(0.3, 2.0)),
        "y": np.concatenate([Y, Y], 1),
    },
    "double": {"net": mlp(3, [4], 1, seed=0).double(), "guide": "auto_normal"},
    "chains": {"restarts": 3},
    "input scale": {"net": mlp(3, [4], 1, input_scale=True, seed=0)},
    "linear": {"net": mlp(3, [], 1, seed=0), "likelihood": likelihoods.Gaussian(0.3)},
}


def fitted(net=None, prior=None, likelihood=None, y=Y, **kwargs):
    net = mlp(3, [6], 1, seed=0) if net is None else net
    network = BayesianNetwork(net, prior, likelihood)
    options = {"epochs": 5, "batch_size": 16, "seed": 0, "progress": False, **kwargs}
    return fit(network, X, y, **options)


def by_hand(network, guide=MeanFieldGuide, example=None, **settings):
    history = History(*[np.zeros(1)] * 3, np.zeros(1, int), np.ones(1, int))
    example = torch.zeros(1, 3) if example is None else example
    return posterior_of(network.eval(), guide(network), history, example, settings)


def header_of(folder):
    return json.loads((folder / "posterior.json").read_text())


def edit(folder, **changes):
    """Change fields of the header, and sign the folder."""
    write_header(folder, {**header_of(folder), **changes})


def tensors_file(folder):
    return folder / header_of(folder)["tensors"]["file"]


def write_header(folder, header, *, is_signed=True):
    """Write a header; with a hash that covers it and the tensors, if it still refers to them."""
    reference = header.get("tensors") if isinstance(header, dict) else None
    if is_signed and isinstance(reference, dict) and "sha256" in reference:
        with contextlib.suppress(ValueError, KeyError, OSError, RecursionError):
            hashed = hash_of_header(header)
            hashed.update((folder / str(reference["file"])).read_bytes())
            header = {**header, "tensors": {**reference, "sha256": hashed.hexdigest()}}
    (folder / "posterior.json").write_text(json.dumps(header))


def sign(folder):
    """Write the current size and hash of the tensors into the header."""
    file = tensors_file(folder)
    edit(folder, tensors={"file": file.name, "bytes": file.stat().st_size, "sha256": ""})


def edit_tensors(folder, **changes):
    """Change tensors, or remove them with None, and sign the file."""
    tensors = load_file(tensors_file(folder)) | changes
    save_file({n: t for n, t in tensors.items() if t is not None}, tensors_file(folder))
    sign(folder)


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def flip_a_bit(folder):
    body = bytearray(tensors_file(folder).read_bytes())
    body[-5] ^= 1
    tensors_file(folder).write_bytes(body)


def write_signed(folder, content):
    """Write a file of tensors whose size and hash agree with the header."""
    tensors_file(folder).write_bytes(content)
    sign(folder)


def assert_refused(folder, message):
    with pytest.raises(ValueError, match=message) as error:
        Posterior.load(folder)
    assert str(error.value).startswith(f"`path` {str(folder)!r} ")
