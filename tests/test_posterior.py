"""Draws, predictions and files of a fitted posterior."""

import json
import pickle
import stat
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from safetensors.torch import load_file, save_file
from torch import nn

from pyrobbb import (
    BayesianNetwork,
    MeanFieldGuide,
    Posterior,
    fit,
    likelihoods,
    mlp,
    priors,
)
from pyrobbb.history import History
from pyrobbb.sampling import BLOCK

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = np.sin(X.sum(1, keepdims=True))


def fitted(net=None, prior=None, likelihood=None, y=Y, **kwargs):
    net = mlp(3, [6], 1, seed=0) if net is None else net
    network = BayesianNetwork(net, prior, likelihood)
    return fit(network, X, y, epochs=5, batch_size=16, seed=0, progress=False, **kwargs)


@pytest.fixture(scope="module")
def posterior():
    return fitted()


# Draws


def test_draws_have_the_moments_of_the_guide(posterior):
    draws = posterior.draws(4000, seed=0)
    loc, scale = (posterior.guide.split(v) for v in (posterior.guide.loc, posterior.guide.scale))
    for name, _ in posterior.network.bayesian_parameters():
        error = scale[name] / 4000**0.5
        assert (((draws[name].mean(0) - loc[name]) / error).abs() < 5).all()
        assert ((draws[name].std(0) / scale[name] - 1).abs() < 0.06).all()
    log_noise = draws["noise_scale"].log()
    assert abs(log_noise.mean() - loc["noise_scale"]) < 5 * scale["noise_scale"] / 4000**0.5
    assert draws["noise_scale"].shape == (4000,)


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_the_first_draws_are_the_same_for_any_number_of_draws(guide):
    posterior = fitted(guide=guide)
    many, few = posterior.draws(2 * BLOCK + 5, seed=3), posterior.draws(BLOCK + 2, seed=3)
    assert set(many) == {"0.weight", "0.bias", "2.weight", "2.bias", "noise_scale"}
    for name in many:
        assert torch.equal(many[name][: BLOCK + 2], few[name])
        assert len(many[name].unique(dim=0)) == 2 * BLOCK + 5


def test_a_seed_makes_draws_and_predictions_repeatable_and_none_does_not(posterior):
    assert torch.equal(posterior.draws(3, seed=1)["2.bias"], posterior.draws(3, seed=1)["2.bias"])
    assert not torch.equal(posterior.draws(3)["2.bias"], posterior.draws(3)["2.bias"])
    first, again = (posterior.predict(X, n_draws=5, seed=1).mean for _ in range(2))
    np.testing.assert_array_equal(first, again)


# Predictions


def test_a_prediction_is_the_module_run_under_each_draw(posterior):
    """Trap 7: one draw of the weights is held for all rows."""
    prediction = posterior.predict(X, n_draws=20, seed=4)
    draws = posterior.draws(20, seed=4)
    outputs = []
    for s in range(20):
        net = mlp(3, [6], 1)
        net.load_state_dict({n: draws[n][s] for n in net.state_dict()})
        outputs.append(net(torch.as_tensor(X)).detach().numpy())
    outputs = np.array(outputs)
    np.testing.assert_allclose(prediction.mean, outputs.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.epistemic_sd, outputs.std(0), rtol=1e-3, atol=1e-5)
    noise = np.full((40, 1), float((draws["noise_scale"] ** 2).mean().sqrt()))
    np.testing.assert_allclose(prediction.aleatoric_sd, noise, rtol=1e-5)
    by_row = [posterior.predict(X[i : i + 1], n_draws=20, seed=4).mean[0] for i in range(40)]
    np.testing.assert_allclose(prediction.mean, by_row, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("max_memory", [1, 20_000, 200_000])
def test_a_prediction_does_not_depend_on_the_memory_bound(posterior, max_memory):
    wide = posterior.predict(X, n_draws=50, seed=5)
    tight = posterior.predict(X, n_draws=50, seed=5, max_memory=max_memory)
    np.testing.assert_allclose(tight.mean, wide.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tight.interval(0.9), wide.interval(0.9), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tight.log_prob(Y), wide.log_prob(Y), rtol=1e-4)


def test_a_large_prediction_keeps_to_the_memory_bound():
    """1000 draws of 91,801 weights, and 1000 x 40,000 outputs; the bound is 128 MiB."""
    program = """
        import resource, torch
        from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, mlp
        from pyrobbb.history import History
        torch.set_num_threads(1)
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        def posterior(hidden):
            network = BayesianNetwork(mlp(2, hidden, 1)).eval()
            return Posterior(network, MeanFieldGuide(network), None, torch.zeros(1, 2))
        posterior([5]).predict(torch.randn(50, 2), n_draws=20).interval()
        small, wide = posterior([20]), posterior([300, 300])
        x, few = torch.randn(40_000, 2), torch.randn(500, 2)
        before = peak()
        prediction = small.predict(x, n_draws=1000, seed=0, max_memory=128 * 2**20)
        prediction.mean, prediction.interval()
        wide.predict(few, n_draws=1000, seed=0, max_memory=128 * 2**20).mean
        print((peak() - before) / 2**20)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    # The outputs alone are 160 MB for the first, the weights 367 MB for the second.
    assert float(run.stdout) < 128


def test_the_kind_of_the_input_is_the_kind_of_the_output(posterior):
    tensor = posterior.predict(torch.as_tensor(X), n_draws=3)
    assert isinstance(tensor.mean, torch.Tensor)
    assert tensor.mean.dtype == torch.float32
    assert isinstance(posterior.predict(X.tolist(), n_draws=3).interval()[0], np.ndarray)


def test_a_prediction_is_of_the_inputs_as_they_were(posterior):
    x = torch.as_tensor(X).clone()
    prediction, expected = (posterior.predict(x, n_draws=3, seed=0) for _ in range(2))
    kept = expected.mean.clone()
    x.zero_()
    assert torch.equal(prediction.mean, kept)


def test_posteriors_and_predictions_can_be_pickled(posterior):
    again = pickle.loads(pickle.dumps(posterior))
    for name, value in posterior.draws(3, seed=0).items():
        assert torch.equal(value, again.draws(3, seed=0)[name])
    prediction = posterior.predict(X, n_draws=3, seed=0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(prediction)).mean, prediction.mean)


def test_gradients_are_not_kept(posterior):
    assert not posterior.predict(torch.as_tensor(X), n_draws=3).mean.requires_grad
    assert not any(value.requires_grad for value in posterior.draws(3).values())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.draws(0), ValueError, "`n` must be at least 1, got 0"),
        (lambda p: p.predict(X, n_draws=0), ValueError, "`n_draws` must be at least 1, got 0"),
        (lambda p: p.predict(X, n_draws=2.5), TypeError, "`n_draws` must be a whole number"),
        (lambda p: p.predict(X, max_memory=0), ValueError, "`max_memory` must be at least 1"),
        (lambda p: p.predict(X[:, :2]), ValueError, r"`x` with rows of shape \(2,\)"),
        (lambda p: p.predict(X * np.nan), ValueError, "`x` has 120 value"),
        (lambda p: p.predict(X[:0]), ValueError, "`x` is empty"),
    ],
)
def test_bad_arguments_are_named(posterior, call, error, message):
    with pytest.raises(error, match=message):
        call(posterior)


# Files

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
}


@pytest.mark.parametrize("name", CASES)
def test_a_posterior_comes_back_from_its_folder_whole(name, tmp_path):
    before = fitted(**CASES[name])
    before.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model")
    assert after.network.prior == before.network.prior
    assert after.network.likelihood == before.network.likelihood
    assert after.settings == before.settings
    assert not after.network.training
    for name_, value in before.draws(20, seed=0).items():
        assert torch.equal(value, after.draws(20, seed=0)[name_])
    for field in ("nelbo", "nll", "kl", "epoch", "n_rows"):
        np.testing.assert_array_equal(getattr(before.history, field), getattr(after.history, field))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_elbo_is_the_same_after_loading_in_another_process(posterior, tmp_path):
    """Trap 3: a prior or a scale that is lost on the way would change it."""
    posterior.save(tmp_path / "model")
    program = f"""
        import torch
        from pyro.infer import Trace_ELBO
        from pyrobbb import Posterior
        torch.set_num_threads(1)
        posterior = Posterior.load({str(tmp_path / "model")!r})
        x = torch.tensor({X.tolist()}); y = torch.tensor({Y.tolist()})
        torch.manual_seed(7)
        print(repr(Trace_ELBO().loss(posterior.network, posterior.guide, x, y)))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    torch.manual_seed(7)
    x, y = torch.tensor(X.tolist()), torch.tensor(Y.tolist())
    assert float(run.stdout) == Trace_ELBO().loss(posterior.network, posterior.guide, x, y)


def test_a_module_of_ones_own_is_filled_from_the_folder(tmp_path):
    def net():
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))

    prior = priors.ByName({"1.*": None})
    before = fitted(net(), prior)
    before.save(tmp_path / "model")
    with pytest.raises(ValueError, match="no plain `mlp`, and code is not stored: pass `network`"):
        Posterior.load(tmp_path / "model")
    after = Posterior.load(tmp_path / "model", BayesianNetwork(net(), prior))
    np.testing.assert_array_equal(
        before.predict(X, n_draws=5, seed=0).mean, after.predict(X, n_draws=5, seed=0).mean
    )


def test_a_prior_of_ones_own_must_be_given_again(tmp_path):
    def own(name, parameter):
        return priors.Normal(0.5)(name, parameter)

    fitted(prior=own).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"prior '.*own', which is not stored: pass `network`"):
        Posterior.load(tmp_path / "model")
    Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), own))


def test_saving_again_replaces_the_folder_and_leaves_others_alone(posterior, tmp_path):
    posterior.save(tmp_path / "model")
    fitted(prior=priors.Normal(2.0)).save(tmp_path / "model")
    assert Posterior.load(tmp_path / "model").network.prior == priors.Normal(2.0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="exists and holds no posterior"):
        posterior.save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "years of work"


def test_a_saved_folder_can_be_read_by_others(posterior, tmp_path):
    (tmp_path / "plain").mkdir()
    posterior.save(tmp_path / "model")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "model")]
    assert modes[0] == modes[1]


def test_numbers_of_numpy_are_saved_as_well(tmp_path):
    fitted(kl_warmup=np.float32(0.25), lr=np.float32(0.01)).save(tmp_path / "model")
    assert Posterior.load(tmp_path / "model").settings["kl_warmup"] == 0.25


def test_loading_leaves_the_buffers_of_batch_norm_as_they_were_saved(tmp_path):
    def net():
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))

    before = fitted(net(), priors.ByName({"1.*": None}), guide="auto_normal")
    before.save(tmp_path / "model")
    network = BayesianNetwork(net(), priors.ByName({"1.*": None}))
    after = Posterior.load(tmp_path / "model", network)
    for name, value in before.network.state_dict().items():
        assert torch.equal(value, after.network.state_dict()[name]), name


def test_a_failed_save_leaves_nothing_behind(posterior, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("pyrobbb.storage.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        posterior.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_another_guide_cannot_be_saved(tmp_path):
    network = BayesianNetwork(mlp(3, [6], 1))
    history = History(*[np.zeros(1)] * 3, np.zeros(1, int), np.ones(1, int))
    other = Posterior(network, nn.Linear(1, 1), history, torch.zeros(1, 3))
    with pytest.raises(TypeError, match="A guide of type Linear cannot be saved"):
        other.save(tmp_path / "model")


def _edit(folder, **changes):
    header = json.loads((folder / "posterior.json").read_text())
    (folder / "posterior.json").write_text(json.dumps({**header, **changes}))


def _without_a_tensor(folder):
    tensors = load_file(folder / "posterior.safetensors")
    del tensors["guide.rho"]
    save_file(tensors, folder / "posterior.safetensors")


DAMAGE = {
    "not there": (lambda f: (f / "posterior.json").unlink(), FileNotFoundError, "no posterior"),
    "cut json": (lambda f: (f / "posterior.json").write_text('{"form'), ValueError, "is damaged"),
    "cut tensors": (
        lambda f: (f / "posterior.safetensors").write_bytes(b"abc"),
        ValueError,
        "is damaged",
    ),
    "version": (lambda f: _edit(f, format=99), ValueError, "has format 99"),
    "a tensor less": (_without_a_tensor, ValueError, "guide does not fit: 'rho'"),
    "another net": (
        lambda f: _edit(f, net={"n_in": 3, "hidden": [7], "n_out": 1, "activation": "relu"}),
        ValueError,
        "network does not fit: '0.bias' has shape",
    ),
    "unknown prior": (
        lambda f: _edit(f, prior={"type": "os.system"}),
        ValueError,
        "prior 'os.system', which is not stored",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_told_as_such(posterior, tmp_path, name):
    damage, error, message = DAMAGE[name]
    posterior.save(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(error, match=message):
        Posterior.load(tmp_path / "model")


def test_a_network_that_is_not_the_stored_one_is_refused(posterior, tmp_path):
    posterior.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"has the prior .*'scale': 3.0.*, the stored posterior"):
        Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), priors.Normal(3.0)))
    with pytest.raises(ValueError, match=r"network does not fit: '0.bias'"):
        Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [5], 1)))


def test_a_posterior_can_be_made_by_hand_from_a_guide_of_ones_own_loop():
    network = BayesianNetwork(mlp(3, [6], 1)).eval()
    history = History(*[np.zeros(1)] * 3, np.zeros(1, int), np.ones(1, int))
    posterior = Posterior(network, MeanFieldGuide(network), history, torch.zeros(1, 3))
    assert posterior.predict(X, n_draws=3).mean.shape == (40, 1)
