"""Chains of one fit that differ in the weight of the KL divergence and in their rows."""

import numpy as np
import pytest
import torch
from support import (
    Crash,
    X,
    Y,
    assert_same_fit,
    combined,
    crash_at,
    learned,
    quick_fit,
    small_network,
)

from pyrobbb.training.restarts import fresh_start

KL_WEIGHTS = (0.1, 0.5, 1.0)
ROWS = [np.flatnonzero(np.arange(23) % 3 != k)[:15] for k in range(3)]
WEIGHT = np.linspace(0.5, 2.0, 23)
CASES = {
    "fused": {},
    "full batch": {"batch_size": 100},
    "particles": {"n_particles": 3},
    "closed form": {"objective": "mean_field"},
    "closed form, particles": {"objective": "mean_field", "n_particles": 3},
    "weights": {"sample_weight": WEIGHT},
    "clipped": {"clip_norm": 1.0},
    "compiled": {"engine": "compiled"},
    "compiled, full batch, weights": {
        "engine": "compiled",
        "batch_size": 100,
        "sample_weight": WEIGHT,
    },
    "svi": {"engine": "svi"},
    "auto": {"engine": "auto"},
    "low rank": {"guide": "low_rank"},
    "low rank, particles": {"guide": "low_rank", "n_particles": 3},
}


def alone(chain, options):
    """Return the fit of one chain, to its own rows."""
    network, rows = small_network(), ROWS[chain]
    network = fresh_start(network, 1 + chain) if chain else network
    options = dict(options)
    if "sample_weight" in options:
        options["sample_weight"] = options["sample_weight"][rows]
    return quick_fit(
        network, X[rows], Y[rows], kl_weight=KL_WEIGHTS[chain], seed=1 + chain, **options
    )


def case(name):
    is_slow = name == "compiled, full batch, weights"
    return pytest.param(CASES[name], marks=pytest.mark.slow if is_slow else (), id=name)


@pytest.mark.parametrize("options", [case(name) for name in CASES])
def test_each_chain_is_a_separate_fit_with_its_weight_to_its_rows(options):
    together = quick_fit(restarts=3, kl_weight=KL_WEIGHTS, rows=ROWS, **options)
    separate = combined([alone(chain, options) for chain in range(3)])
    assert_same_fit(together, separate, rtol=1e-12)
    assert [chain.settings.kl_weight for chain in together.chains] == list(KL_WEIGHTS)
    assert [chain.settings.n_data for chain in together.chains] == [15, 15, 15]


def test_rows_of_different_numbers_are_fitted_one_after_another():
    rows = [np.arange(10), np.arange(5, 23)]
    together = quick_fit(restarts=2, rows=rows)
    assert [len(chain.history.nll) for chain in together.chains] == [4, 8]
    first = quick_fit(x=X[:10], y=Y[:10])
    torch.testing.assert_close(learned(together.chains[0]), learned(first), rtol=0, atol=0)


def test_chains_of_a_warm_start_have_weights_and_rows_of_their_own():
    start = quick_fit(restarts=3)
    again = quick_fit(start=start, kl_weight=KL_WEIGHTS, rows=ROWS)
    assert [chain.settings.kl_weight for chain in again.chains] == list(KL_WEIGHTS)
    assert [chain.settings.n_data for chain in again.chains] == [15, 15, 15]
    with pytest.raises(ValueError, match="a sequence of 3, one for each"):
        quick_fit(start=start, kl_weight=KL_WEIGHTS[:2])


def test_equal_weights_are_one_weight():
    one, other = quick_fit(restarts=2, kl_weight=0.3), quick_fit(restarts=2, kl_weight=[0.3, 0.3])
    assert_same_fit(one, other)


def test_a_killed_fit_of_different_chains_continues_to_the_same_bits(tmp_path, monkeypatch):
    options = {"restarts": 3, "kl_weight": KL_WEIGHTS, "rows": ROWS, "epochs": 40}
    whole = quick_fit(**options)
    with monkeypatch.context() as patch:
        crash_at(patch, 40)
        with pytest.raises(Crash):
            quick_fit(checkpoint=tmp_path, every=10, **options)
    assert_same_fit(quick_fit(checkpoint=tmp_path, every=10, **options), whole)
    others = [ROWS[0], ROWS[1], ROWS[2][::-1]]
    with pytest.raises(ValueError, match="rows"):
        quick_fit(checkpoint=tmp_path, every=10, **{**options, "rows": others})


@pytest.mark.parametrize(
    ("kl_weight", "message"),
    [
        ([0.1], r"`kl_weight` must be one weight, or a sequence of 2.*got \[0.1\]"),
        (np.ones((2, 1)), "`kl_weight` must be one weight, or a sequence of 2"),
        ([0.1, 0.0], "`kl_weight` must be positive"),
        ([0.1, np.nan], "`kl_weight` must be"),
    ],
)
def test_invalid_weights_raise(kl_weight, message):
    with pytest.raises(ValueError, match=message):
        quick_fit(restarts=2, kl_weight=kl_weight)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([np.arange(5)], "`rows` must be a sequence of 2 arrays"),
        (3, "`rows` must be a sequence of 2 arrays"),
        ([np.arange(5), np.arange(22, 24)], r"`rows` must lie in \[0, 23\).*got 23"),
        ([np.arange(5), np.array([-1])], r"`rows` must lie in \[0, 23\).*got -1"),
        ([np.arange(5), np.zeros(23, bool)], r"dtype bool: for a mask, pass np.flatnonzero"),
        ([np.arange(5), []], "`rows` must hold arrays of row indices, but that of restart 1"),
        ([np.arange(5), [1, 1]], "`rows` of restart 1 must be distinct"),
    ],
)
def test_invalid_rows_raise(rows, message):
    with pytest.raises(ValueError, match=message):
        quick_fit(restarts=2, rows=rows)


def test_rows_of_a_file_are_refused(tmp_path):
    x = np.memmap(tmp_path / "x", np.float64, "w+", shape=X.shape)
    with pytest.raises(ValueError, match="`rows` needs x and y in memory, got a memmap"):
        quick_fit(x=x, rows=[np.arange(5)])
