"""fit(init="map"): a deterministic fit of the weights, where that of the posterior starts."""

import copy
import functools
import logging

import numpy as np
import pytest
import support
import torch
from support import X, Y, assert_equal, crash_at, quick_fit, small_network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, fit, likelihoods, mlp, priors
from pyrobbb.engines import fused
from pyrobbb.training import FitConfig, fresh_start
from pyrobbb.training.checkpoints import MODE
from pyrobbb.training.mode import find_modes
from pyrobbb.training.run import ChainStart


def mode_of(network, x=X, y=Y, folder=None, **options):
    """Return the network at whose weights a fit with init="map" starts."""
    options = {"epochs": 20, "batch_size": 10, "seed": 1, "progress": False, **options}
    config = FitConfig(network, x, y, init="map", **options)
    (start,), is_interrupted = find_modes(
        config,
        [ChainStart(network, 1, None, config.kl_weights[0], config.rows_of_chains[0])],
        folder,
    )
    assert not is_interrupted
    return start.network


def gradient_descent(network, n_epochs, lr=0.01):
    """Minimise the mean square error by torch alone, on full batches with the one-cycle schedule.

    The Gaussian likelihood has a known scale of 0.5; the gradient has the scale of the fit, though
    Adam is nearly indifferent to it.
    """
    net = copy.deepcopy(network).net
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    x, y = torch.tensor(X), torch.tensor(Y)
    for step in range(n_epochs):
        done = step / n_epochs
        rise = 0.5 * (1 - np.cos(np.pi * done / 0.3))
        fall = 0.5 * (1 + np.cos(np.pi * (done - 0.3) / 0.7))
        optimizer.param_groups[0]["lr"] = lr * (0.04 + 0.96 * rise if done < 0.3 else fall)
        optimizer.zero_grad()
        (0.5 * ((net(x) - y) / 0.5) ** 2).sum().backward()
        optimizer.step()
    return net


@pytest.mark.parametrize(
    ("engine", "parts"),
    [
        ("svi", {}),
        ("svi", {"prior": priors.ByName({"2.*": None}, priors.Laplace(0.1))}),
        ("fused", {}),
        ("fused", {"prior": priors.ByName({"2.*": None}, priors.Laplace(0.1))}),
        ("auto", {}),
        ("compiled", {}),
    ],
)
def test_the_mode_is_that_of_torch_by_maximum_likelihood_on_every_engine(engine, parts):
    network = small_network(likelihood=likelihoods.Gaussian(0.5), **parts)
    expected = gradient_descent(network, n_epochs=40)
    found = mode_of(network, epochs=400, batch_size=23, engine=engine)  # a tenth: 40
    torch.testing.assert_close(
        dict(found.net.named_parameters()), dict(expected.named_parameters()), rtol=1e-8, atol=1e-8
    )


WITHOUT_EFFECT = {
    "draws by row": {"estimator": "local"},
    "draws": {"objective": "mean_field", "n_particles": 3},
    "guide": {"guide": "auto_normal"},
    "KL weight": {"kl_weight": 0.1},
    "validation": {"validation": (X[:5], Y[:5]), "patience": 1},
    "callback": {"callbacks": lambda end: True},
}


@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_the_mode_does_not_depend_on_noise_kl_validation_and_callbacks(case):
    expected = mode_of(small_network())
    found = mode_of(small_network(), **WITHOUT_EFFECT[case])
    torch.testing.assert_close(found.net.state_dict(), expected.net.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("engine", "guide"),
    [
        ("svi", "mean_field"),
        ("fused", "mean_field"),
        pytest.param("compiled", "mean_field", marks=pytest.mark.slow),
        ("auto", "auto_normal"),
    ],
)
def test_the_fit_is_that_of_the_network_at_the_mode(engine, guide):
    found = mode_of(small_network(), epochs=4, engine=engine, guide=guide)
    options = {"engine": engine, "guide": guide}
    expected = quick_fit(found, **options)
    posterior = quick_fit(init="map", **options)
    assert posterior.settings == {**expected.settings, "init": "map"}
    support.assert_same_fit(posterior, expected)
    assert len(posterior.history.nelbo) == 12  # the steps of the deterministic fit are not in it


def test_by_default_the_means_start_at_the_weights_of_the_module_trained_or_not():
    trained = BayesianNetwork(mode_of(small_network(), epochs=200).net)
    seen = []
    for network in (small_network(), trained):
        fit(
            network,
            X,
            Y,
            epochs=1,
            batch_size=23,
            lr=1e-12,
            progress=False,
            seed=0,
            callbacks=(lambda end: seen.append(end.posterior().guide),),
        )
        guide = seen.pop()
        means = guide.split(guide.loc)
        for name, parameter in network.net.named_parameters():
            torch.testing.assert_close(means[name], parameter, rtol=0, atol=1e-10)


def test_restarts_have_modes_of_their_own_and_are_separate_fits():
    together = quick_fit(init="map", restarts=3)
    for r, chain in enumerate(together.chains):
        start = small_network() if r == 0 else fresh_start(small_network(), 1 + r)
        alone = quick_fit(start, init="map", seed=1 + r)
        assert chain.settings == alone.settings
        support.assert_same_fit(Posterior((chain,)), alone, rtol=1e-9)
    one_by_one = quick_fit(init="map", restarts=2, validation=(X, Y))
    assert not torch.equal(one_by_one.chains[0].guide.loc, one_by_one.chains[1].guide.loc)


def test_chains_of_different_kl_weights_and_rows_start_at_modes_of_their_rows():
    weights, rows = (0.1, 1.0), [np.arange(15), np.arange(8, 23)]
    together = quick_fit(init="map", restarts=2, kl_weight=weights, rows=rows)
    for r, chain in enumerate(together.chains):
        start = small_network() if r == 0 else fresh_start(small_network(), 1 + r)
        data, options = (X[rows[r]], Y[rows[r]]), {"seed": 1 + r, "kl_weight": weights[r]}
        alone = quick_fit(start, *data, init="map", **options)
        assert chain.settings == alone.settings
        support.assert_same_fit(Posterior((chain,)), alone, rtol=1e-9)


KILLED = {
    "one chain": {},
    "Pyro's SVI": {"engine": "svi"},
    "side by side": {"restarts": 2},
    "one after another": {"restarts": 2, "validation": (X, Y), "patience": 3},
    "Pyro's guide": {"guide": "auto_normal"},
}


@pytest.mark.parametrize("case", KILLED)
@pytest.mark.parametrize("n_steps", [1, 9])  # at the mode, and after it
def test_a_killed_fit_continues_with_the_same_bits(tmp_path, monkeypatch, case, n_steps):
    options = {"init": "map", **KILLED[case]}
    expected = quick_fit(**options)
    with monkeypatch.context() as patched:
        patched.setattr(fused, "MAX_STEPS_PER_CALL", 2)
        crash_at(patched, n_steps)
        with pytest.raises(support.Crash):
            quick_fit(checkpoint=tmp_path, every=1, **options)
    assert_equal(quick_fit(checkpoint=tmp_path, every=1, **options), expected)


def test_the_seed_of_a_fit_that_was_killed_at_the_mode_is_found(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        crash_at(patched, 2)
        with pytest.raises(support.Crash):
            quick_fit(init="map", epochs=20, seed=None, checkpoint=tmp_path, every=1)
    assert [path.name for path in tmp_path.iterdir()] == [MODE]
    posterior = quick_fit(init="map", epochs=20, seed=None, checkpoint=tmp_path, every=1)
    again = quick_fit(init="map", epochs=20, seed=posterior.settings["seed"])
    assert_equal(posterior, again)


def test_a_checkpoint_of_a_fit_without_init_is_refused(tmp_path):
    quick_fit(checkpoint=tmp_path)
    with pytest.raises(ValueError, match="belongs to another fit: its 'init' is"):
        quick_fit(checkpoint=tmp_path, init="map")


def test_ctrl_c_at_the_mode_returns_the_posterior_there(monkeypatch):
    def interrupt(self, steps, losses):
        raise KeyboardInterrupt

    monkeypatch.setattr(fused.FusedEngine, "run", interrupt)
    posterior = quick_fit(init="map", restarts=2)
    assert [len(chain.history.nelbo) for chain in posterior.chains] == [0, 0]
    expected = MeanFieldGuide(small_network())
    torch.testing.assert_close(posterior.chains[0].guide.state_dict(), expected.state_dict())
    assert np.isfinite(posterior.predict(X, seed=0).mean).all()


def test_loaders_and_files_are_read_from_the_beginning_for_the_mode(tmp_path):
    loader = DataLoader(
        TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=10, shuffle=True
    )
    x, y = (
        np.memmap(tmp_path / name, np.float64, "w+", shape=values.shape)
        for name, values in (("x", X), ("y", Y))
    )
    x[:], y[:] = X, Y
    for data in ({"x": loader, "y": None, "n_data": 23}, {"x": x, "y": y}):
        options = {"batch_size": 10} if data["y"] is not None else {}
        posterior = fit(
            small_network(), **data, **options, init="map", epochs=5, seed=0, progress=False
        )
        assert posterior.history.n_epochs == 5
        assert posterior.settings["init"] == "map"


def test_buffers_and_point_parameters_start_at_the_mode_too():
    def make():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
        return BayesianNetwork(net, priors.ByName({"1.*": None}))

    found = mode_of(make(), epochs=5)
    assert int(found.net[1].num_batches_tracked) == 3  # one epoch
    support.assert_same_fit(
        quick_fit(make(), init="map", epochs=5), quick_fit(mode_of(make(), epochs=5), epochs=5)
    )


def test_the_start_is_logged_and_stored(caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger="pyrobbb"):
        posterior = quick_fit(init="map")
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.startswith("The fit begins at a mode") for message in messages)
    posterior.save(tmp_path / "saved")
    assert Posterior.load(tmp_path / "saved").settings["init"] == "map"


REFUSED = {
    "another name": ({"init": "mode"}, "`init` must be one of map, got 'mode'"),
    "True": ({"init": True}, "`init` must be one of map, got True"),
    "start too": (
        {"init": "map", "start": functools.partial(quick_fit, epochs=1)},
        "`init` must be left out with `start`",
    ),
    "custom guide": (
        {"init": "map", "guide": functools.partial(MeanFieldGuide, small_network())},
        "`init` needs guide='mean_field', 'low_rank' or 'auto_normal', got a custom guide",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_values_are_refused(case):
    options, message = REFUSED[case]
    made = {k: v() if isinstance(v, functools.partial) else v for k, v in options.items()}
    with pytest.raises(ValueError, match=message):
        quick_fit(**made)


def six_inputs(n, seed):
    """Return a smooth function of 3 of 6 inputs with noise of sd 0.2: shapes (n, 6) and (n, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 6))
    smooth = np.sin(2 * x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3]
    return x, smooth + 0.2 * rng.normal(size=(n, 1))


def test_on_a_small_table_at_the_full_kl_weight_held_out_rows_are_predicted_better():
    (x, y), held_out = six_inputs(140, 0), six_inputs(500, 10)
    nll = {}
    for init, epochs in ((None, 990), ("map", 900)):  # the same number of steps in all
        network = BayesianNetwork(mlp(6, [50], 1, seed=0))
        options = {"engine": "fused", "batch_size": 70, "seed": 0, "progress": False}
        posterior = fit(network, x, y, init=init, epochs=epochs, **options)
        nll[init] = -posterior.predict(held_out[0], seed=0).log_prob(held_out[1]).mean()
    assert nll["map"] < nll[None] - 0.2, nll
