"""Draws and predictions of a fitted posterior."""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from support import combined, posterior_of

from pyrobbb import (
    BayesianNetwork,
    MeanFieldGuide,
    Posterior,
    fit,
    likelihoods,
    mlp,
    priors,
    prune,
)
from pyrobbb.fitted.history import History
from pyrobbb.prediction.sampling import BLOCK

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


@pytest.mark.parametrize("likelihood", [likelihoods.Gaussian(), likelihoods.StudentT()])
def test_draws_are_those_of_the_guide_in_a_plate(likelihood):
    posterior = prune(fitted(likelihood=likelihood), 0.3)  # with scales of 0
    (source,) = posterior.sources(2 * BLOCK + 5, seed=3)
    in_plate = [block.draws for block in source.blocks(posterior.example)]
    for actual, expected in zip(source.draws(posterior.example), in_plate, strict=True):
        assert actual.keys() == expected.keys()
        for name in actual:
            assert torch.equal(actual[name], expected[name])


def test_seed_makes_draws_and_predictions_repeatable(posterior):
    assert torch.equal(posterior.draws(3, seed=1)["2.bias"], posterior.draws(3, seed=1)["2.bias"])
    assert not torch.equal(posterior.draws(3)["2.bias"], posterior.draws(3)["2.bias"])
    first, again = (posterior.predict(X, n_draws=5, seed=1).mean for _ in range(2))
    np.testing.assert_array_equal(first, again)


# Predictions


def test_prediction_is_the_output_of_the_module_for_each_draw(posterior):
    """One draw of the weights is used for all rows."""
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
def test_prediction_does_not_depend_on_the_memory_bound(posterior, max_memory):
    wide = posterior.predict(X, n_draws=50, seed=5)
    tight = posterior.predict(X, n_draws=50, seed=5, max_memory=max_memory)
    np.testing.assert_allclose(tight.mean, wide.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tight.interval(0.9), wide.interval(0.9), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tight.log_prob(Y), wide.log_prob(Y), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_large_prediction_respects_the_memory_bound():
    """1000 draws of 91,801 weights, and 1000 x 20,000 outputs; the bound is 64 MiB."""
    program = """
        import torch
        from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, mlp
        from pyrobbb.fitted import FittedChain
        torch.set_num_threads(1)
        def peak():
            # The peak of `resource` would include that of the parent process.
            lines = open("/proc/self/status").read().splitlines()
            return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
        def posterior(hidden):
            network = BayesianNetwork(mlp(2, hidden, 1)).eval()
            guide, x = MeanFieldGuide(network), torch.zeros(1, 2)
            return Posterior((FittedChain(network, guide, None, x),))
        posterior([5]).predict(torch.randn(50, 2), n_draws=20).interval()
        small, wide = posterior([20]), posterior([300, 300])
        x, few = torch.randn(20_000, 2), torch.randn(50, 2)
        before = peak()
        prediction = small.predict(x, n_draws=1000, seed=0, max_memory=64 * 2**20)
        prediction.mean, prediction.interval()
        wide.predict(few, n_draws=1000, seed=0, max_memory=64 * 2**20).mean
        print((peak() - before) / 2**10)  # of KiB
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    # The outputs alone are 80 MB for the first, the weights 367 MB for the second.
    assert float(run.stdout) < 64


def test_prediction_has_the_array_type_of_the_input(posterior):
    tensor = posterior.predict(torch.as_tensor(X), n_draws=3)
    assert isinstance(tensor.mean, torch.Tensor)
    assert tensor.mean.dtype == torch.float32
    assert isinstance(posterior.predict(X.tolist(), n_draws=3).interval()[0], np.ndarray)


def test_prediction_does_not_change_with_its_inputs(posterior):
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


def test_draws_and_predictions_have_no_gradients(posterior):
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
def test_invalid_arguments_are_named(posterior, call, error, message):
    with pytest.raises(error, match=message):
        call(posterior)


def test_posterior_can_be_made_from_a_guide_fitted_elsewhere():
    network = BayesianNetwork(mlp(3, [6], 1)).eval()
    history = History(*[np.zeros(1)] * 3, np.zeros(1, int), np.ones(1, int))
    posterior = posterior_of(network, MeanFieldGuide(network), history, torch.zeros(1, 3))
    assert posterior.predict(X, n_draws=3).mean.shape == (40, 1)


def simple_chain(n_hidden=2, prior=None, likelihood=None):
    network = BayesianNetwork(mlp(3, [n_hidden], 1), prior, likelihood).eval()
    return posterior_of(network, MeanFieldGuide(network), None, torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"n_hidden": 3}, "parameters"),
        ({"prior": priors.Normal(2.0)}, "prior"),
        ({"likelihood": likelihoods.Gaussian(3.0)}, "likelihood"),
    ],
)
def test_chains_of_different_models_are_refused(options, part):
    """Draws of all chains go through one likelihood, and ratios to one prior."""
    assert len(combined([simple_chain(), simple_chain()]).chains) == 2
    with pytest.raises(ValueError, match=f"`chains` must have the same {part}: chain 1 has"):
        combined([simple_chain(), simple_chain(**options)])


def test_a_posterior_needs_chains():
    with pytest.raises(ValueError, match="`chains` must hold at least one FittedChain, got none"):
        Posterior(())
    with pytest.raises(TypeError, match="got a FittedChain"):
        Posterior(simple_chain().chains[0])
    with pytest.raises(TypeError, match="got a str in it"):
        Posterior(("chain",))
