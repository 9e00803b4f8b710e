"""Reading a posterior: every part is checked, and nothing in the folder is run."""

import copy
import functools
import json
import operator
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_folders import (
    CASES,
    assert_refused,
    edit,
    edit_tensors,
    fitted,
    flip_a_bit,
    header_of,
    sign,
    tensors_file,
    write_header,
    write_signed,
)
from torch import nn

from pyrobbb import BayesianNetwork, Posterior, likelihoods, mlp, priors, storage
from pyrobbb.storage import reading

STORED = Path(__file__).parents[1] / "stored"


def test_loading_does_not_change_the_random_state(folder):
    torch.manual_seed(0)
    Posterior.load(folder)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("name", [p.stem for p in STORED.glob("format-*.json")])
def test_folders_of_earlier_versions_can_be_read(name):
    """Written by `tests/stored/make.py`. If one cannot be read, fix the reader, not the folder."""
    recorded = json.loads((STORED / f"{name}.json").read_text())
    posterior = Posterior.load(STORED / name)
    assert len(posterior.chains) == 2
    for i, chain in enumerate(posterior.chains):
        np.testing.assert_allclose(chain.guide.loc.detach(), recorded["loc"][i], rtol=1e-7)
        np.testing.assert_allclose(chain.history.nelbo, recorded["nelbo"][i], rtol=1e-15)
        assert chain.settings["seed"] == i
        mixture = priors.ScaleMixture(0.25, 1.5, 0.1)
        assert chain.network.prior == priors.ByName({"*.bias": priors.Normal(2.0)}, mixture)
    x = np.linspace(-1.0, 1.0, 10, dtype=np.float32).reshape(5, 2)
    prediction = posterior.predict(x, n_draws=50, seed=0)
    np.testing.assert_allclose(prediction.mean, recorded["mean"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.aleatoric_sd, recorded["aleatoric_sd"], rtol=1e-4)


def test_current_format_has_a_stored_folder(folder):
    assert (STORED / f"format-{header_of(folder)['format']}").is_dir()


NET = {"n_in": 3, "hidden": [6], "n_out": 1, "activation": "relu"}
DAMAGE = {
    "guide None": (
        lambda f: edit(f, guide=None),
        "'guide' in its posterior.json must be a string, got None",
    ),
    "unknown guide": (
        lambda f: edit(f, guide="evil"),
        "'guide' in its posterior.json must be one of mean_field, low_rank, auto_normal, dense",
    ),
    "other guide": (
        lambda f: edit(f, guide="auto_normal"),
        r"guide's 'locs.noise_scale_unconstrained' has",
    ),
    "versions": (
        lambda f: edit(f, versions={"torch": 2}),
        "'torch' in its 'versions' must be a string, got 2",
    ),
    "number of chains": (
        lambda f: edit(f, n_chains=10**9),
        "'n_chains' .* must be the number of 'settings', at least 1, got 1000000000 and 1",
    ),
    "missing chain": (lambda f: edit(f, n_chains=2, settings=[{}, {}]), "must contain 'example'"),
    "settings": (lambda f: edit(f, settings=[3]), "'settings' must be a list of objects"),
    "missing tensor": (
        lambda f: edit_tensors(f, **{"chain-0.guide.rho": None}),
        r"its guide's 'rho' has shape \(32,\) here and none in the stored tensors",
    ),
    "surplus tensor": (
        lambda f: edit_tensors(f, **{"chain-0.guide.more": torch.zeros(1)}),
        r"its guide's 'more' has shape none here and \(1,\) in the stored tensors",
    ),
    "tensor of no part": (
        lambda f: edit_tensors(f, stray=torch.zeros(1)),
        "its tensors contain 'stray', which belongs to no part",
    ),
    "tensor of no part of a chain": (
        lambda f: edit_tensors(f, **{"chain-0.stray": torch.zeros(1)}),
        "its tensors contain 'stray', which belongs to no part",
    ),
    "no example": (
        lambda f: edit_tensors(f, **{"chain-0.example": None}),
        "must contain 'example'",
    ),
    "other example": (
        lambda f: edit_tensors(f, **{"chain-0.example": torch.zeros(1, 4)}),
        r"a row of x is \{'shape': \[4\]",
    ),
    "history": (
        lambda f: edit_tensors(f, **{"chain-0.history.kl": torch.zeros(2)}),
        r"its history's 'kl' must have shape \(15,\), got \(2,\)",
    ),
    "incomplete history": (
        lambda f: edit_tensors(f, **{"chain-0.history.kl": None}),
        "its history must hold nelbo, nll, kl",
    ),
    "epochs": (
        lambda f: edit_tensors(f, **{"chain-0.history.epoch": torch.zeros(15)}),
        "its history's 'epoch' must hold integers, got torch.float32",
    ),
    "dtype of the guide": (
        lambda f: edit_tensors(f, **{"chain-0.guide.rho": torch.zeros(32).double()}),
        "its guide's 'rho' is torch.float32 here and torch.float64",
    ),
    "dtype of the net": (
        lambda f: edit_tensors(f, **{"chain-0.net.0.bias": torch.zeros(6).double()}),
        "its net's '0.bias' is torch.float32 here and torch.float64",
    ),
    "another net": (
        lambda f: edit(f, net={**NET, "hidden": [7]}),
        r"its net's '0.weight' has shape \(7, 3\) here and \(6, 3\) in the stored tensors",
    ),
    "a net too large": (lambda f: edit(f, net={**NET, "hidden": [10**9]}), r"\(1000000000, 3\)"),
    "a net too deep": (
        lambda f: edit(f, net={**NET, "hidden": [6] * 10**5}),
        "its net's '2.weight",
    ),
    "data": (
        lambda f: edit(f, data={**header_of(f)["data"], "y": {"shape": [2], "dtype": "int64"}}),
        "a row of y is .* here and .* in posterior.json",
    ),
    "no data": (
        lambda f: edit(f, data={**header_of(f)["data"], "n_data": 0}),
        "'n_data' in its 'data' must be at least 1, got 0",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_posterior_is_refused(folder, name):
    damage, message = DAMAGE[name]
    damage(folder)
    assert_refused(folder, message)


def test_sizes_in_a_header_are_checked_before_allocation(folder, monkeypatch):
    monkeypatch.setattr(reading, "mlp", lambda *_, **__: pytest.fail("it was built"))
    edit(folder, net={**NET, "hidden": [10**9]})
    with pytest.raises(ValueError, match="1000000000"):
        Posterior.load(folder)


@pytest.mark.parametrize("read", [storage.read, storage.read_extra])
def test_all_readers_check_the_folder(folder, read):
    flip_a_bit(folder)
    with pytest.raises(ValueError, match="has been changed"):
        read(folder)
    sign(folder)
    edit(folder, guide="evil")
    with pytest.raises(ValueError, match=r"'guide' in its posterior.json must be .*, got 'evil'"):
        read(folder)


def test_network_that_differs_from_the_stored_one_is_refused(folder):
    def load(net, *parts):
        return Posterior.load(folder, BayesianNetwork(net, *parts))

    with pytest.raises(
        ValueError, match=r"its prior is .*'scale': 3.0.*, that of the stored posterior"
    ):
        load(mlp(3, [6], 1), priors.Normal(3.0))
    with pytest.raises(ValueError, match=r"its likelihood is .*'Poisson'.*, that of the stored"):
        load(mlp(3, [6], 1), None, likelihoods.Poisson())
    message = r"`network` does not fit `path` '.*model': its net's '0.weight' has shape \(5, 3\)"
    with pytest.raises(ValueError, match=message + r" here and \(6, 3\) in the stored tensors"):
        load(mlp(3, [5], 1))
    with pytest.raises(ValueError, match=r"its net is MLPSpec.*'tanh'.*, the stored one .*'relu'"):
        load(mlp(3, [6], 1, "tanh"))
    with pytest.raises(ValueError, match=r"'2.bias' has shape none here and \(1,\) in"):
        load(nn.Sequential(nn.Linear(3, 6)))
    assert load(mlp(3, [6], 1).double()).guide.loc.dtype == torch.float32  # as it was stored


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, 10**9, -1, 0, "Normal", "custom", "None", "ByName", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places_in(value, place=()):
    """Yield the paths of all values within a JSON value."""
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, part in value.items() if isinstance(value, dict) else inner:
        yield (*place, key)
        yield from places_in(part, (*place, key))


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    made = {}
    for name in ("by name", "chains", "mixture"):
        folder = tmp_path_factory.mktemp("victim") / "model"
        fitted(**CASES[name]).save(folder)
        made[name] = folder, (folder / "posterior.json").read_text()
    return made


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["by name", "chains", "mixture"]),
    st.lists(st.tuples(st.randoms(use_true_random=False), JSON_VALUES), min_size=1, max_size=3),
    st.sampled_from(["drop", "change", "add", "swap"]),
)
def test_arbitrary_header_is_read_or_refused_with_the_path(victims, name, mutations, kind):
    folder, text = victims[name]
    header = json.loads(text)
    for draw, value in mutations:
        places = list(places_in(header))
        if not places:
            break
        *way, key = draw.choice(places)
        inner = functools.reduce(operator.getitem, way, header)
        if kind == "drop":
            del inner[key]
        elif kind == "swap":
            other = draw.choice(places)
            inner[key] = copy.deepcopy(functools.reduce(operator.getitem, other, header))
        elif kind == "add" and isinstance(inner, dict):
            inner[str(value)[:5]] = value
        else:
            inner[key] = value
    write_header(folder, header)
    assert_read_or_refused(folder)


def assert_read_or_refused(folder):
    message = None
    try:
        Posterior.load(folder)
    except (FileNotFoundError, ValueError) as error:
        message = str(error)
    assert message is None or str(folder) in message


@pytest.mark.parametrize("seed", range(100))
def test_arbitrary_tensors_are_read_or_refused_with_the_path(victims, seed):
    folder, text = victims["by name"]
    (folder / "posterior.json").write_text(text)
    whole = tensors_file(folder).read_bytes()
    draw = random.Random(seed)
    body = bytearray(whole)
    n_header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(draw.randint(1, 4)):  # mostly in the names, types and shapes
        place = draw.randrange(n_header if draw.random() < 0.8 else len(body))
        body[place] = draw.choice([draw.randrange(256), *b'0123456789,[]"'])
    try:
        write_signed(folder, bytes(body))
        assert_read_or_refused(folder)
    finally:
        tensors_file(folder).write_bytes(whole)
