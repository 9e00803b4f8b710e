"""fit(kl_weight="auto"): the weight of the KL divergence chosen by held-out rows."""

import logging

import numpy as np
import pytest
import torch
from support import X, Y, assert_same_fit, quick_fit, small_network
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import MeanFieldGuide, Posterior
from pyrobbb.training.kl_search import KL_WEIGHTS, N_DRAWS, KLSearch

RNG = np.random.default_rng(1)
HELD = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 1))
LOADER = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), batch_size=5)
AUTO = {"kl_weight": "auto", "validation": HELD, "epochs": 40}


def test_each_weight_has_the_score_of_a_fit_with_it():
    record = quick_fit(**AUTO).settings["kl_search"]
    scores = []
    for weight in KL_WEIGHTS:
        prediction = quick_fit(kl_weight=weight, epochs=40).predict(HELD[0], N_DRAWS, 1)
        scores.append(prediction.log_prob(HELD[1]))
    assert record["kl_weight"] == list(KL_WEIGHTS)
    np.testing.assert_allclose(record["log_density"], np.mean(scores, 1), rtol=1e-9)
    difference = scores[np.argmax(np.mean(scores, 1))] - np.array(scores)
    error = np.array([np.std(d, ddof=1) / 3 for d in difference])
    np.testing.assert_allclose(record["standard_error"], error, rtol=1e-6, atol=1e-12)
    is_level = difference.mean(1) <= error
    assert record["chosen"] == max(np.array(KL_WEIGHTS)[is_level])


@pytest.mark.parametrize("options", [{}, {"restarts": 2}, {"engine": "svi", "epochs": 4}])
def test_the_fit_is_that_with_the_chosen_weight(options):
    options = {**AUTO, **options}
    chosen = quick_fit(**options)
    weight = chosen.chains[0].settings["kl_weight"]
    assert weight in KL_WEIGHTS
    assert_same_fit(chosen, quick_fit(**{**options, "kl_weight": weight}))


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([0.0, 0.5, 0.5], 0.1),  # clearly the lowest
        ([0.5, 0.0, 0.5], 0.4),
        ([0.0, 0.5, 0.01], 1.0),  # level with the best, though the one between is not
        ([0.0, 0.01, 0.01], 1.0),
    ],
)
def test_the_highest_weight_within_one_standard_error_is_chosen(gaps, expected):
    noise = np.tile([0.05, -0.05], 50)  # standard error of the difference: 0.005 for each sign
    rows = [-np.full(100, gap) + noise * sign for gap, sign in zip(gaps, (0, 3, -3), strict=True)]
    assert KLSearch.of((0.1, 0.4, 1.0), np.stack(rows)).chosen == expected


def test_little_noise_calls_for_a_lower_weight_than_much():
    x = RNG.uniform(-2, 2, (200, 3))
    signal = np.sin(2 * x[:, :1])
    chosen = []
    for sd in (0.01, 2.0):
        y = signal + sd * RNG.normal(size=signal.shape)
        held = x[150:], y[150:]
        options = {**AUTO, "epochs": 300, "batch_size": 50, "validation": held}
        chosen.append(quick_fit(x=x[:150], y=y[:150], **options).settings["kl_weight"])
    assert chosen[0] < chosen[1] == 1.0


def test_what_was_tried_is_saved_and_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="pyrobbb")
    posterior = quick_fit(**AUTO)
    posterior.save(tmp_path / "model")
    loaded = Posterior.load(tmp_path / "model")
    assert loaded.settings["kl_search"] == posterior.settings["kl_search"]
    assert f"kl_weight='auto': {posterior.settings['kl_weight']:g}. Mean log density" in caplog.text


def test_an_interrupted_fit_continues_with_the_weight_that_it_had(tmp_path):
    first = quick_fit(**AUTO, checkpoint=tmp_path)
    assert_same_fit(quick_fit(**AUTO, checkpoint=tmp_path), first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": None}, "`kl_weight`='auto' needs `validation`"),
        ({"start": quick_fit(epochs=1)}, "`kl_weight`='auto' must not be combined with `start`"),
        ({"guide": lambda *args: None}, "`kl_weight` needs guide="),
        ({"x": LOADER, "y": None, "n_data": 23}, "`kl_weight` needs x and y in memory"),
        ({"kl_weight": "best"}, "`kl_weight` must be"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        quick_fit(**{**AUTO, **options})


def test_a_guide_that_is_given_is_not_changed_by_the_search():
    network = small_network()
    posterior = quick_fit(network, guide=MeanFieldGuide(network), **AUTO)
    fresh = quick_fit(**{**AUTO, "kl_weight": posterior.settings["kl_weight"]})
    assert_same_fit(posterior, fresh)
