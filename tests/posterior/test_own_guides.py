"""Posteriors from a Pyro loop of one's own, compared with Pyro's Predictive at the same draws."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, autoguide
from pyro.nn import PyroModule, PyroParam
from support import X, Y, small_network

from pyrobbb import LowRankGuide, MeanFieldGuide, Posterior, auto_normal, from_pyro
from pyrobbb.priors import ByName, Normal

TX, TY = torch.tensor(X), torch.tensor(Y)
SITES = ["0.weight", "0.bias", "2.weight", "2.bias", "noise_scale"]


def network():
    return small_network(prior=ByName({"0.bias": None}, default=Normal()))


def own_function(model):
    shapes = {name: p.shape for name, p in model.bayesian_parameters()}

    def guide(x, y=None, n_data=None):
        for name, shape in shapes.items():
            loc = pyro.param(f"{name}.loc", torch.full(shape, 0.1, dtype=torch.float64))
            scale = pyro.param(
                f"{name}.scale",
                torch.full(shape, 0.1, dtype=torch.float64),
                constraint=dist.constraints.positive,
            )
            pyro.sample(name, dist.Normal(loc, scale).to_event(len(shape)))
        noise = pyro.param("noise", torch.tensor(0.0, dtype=torch.float64))
        pyro.sample("noise_scale", dist.LogNormal(noise, 0.1))

    return guide


class OwnModule(PyroModule):
    def __init__(self, model):
        super().__init__()
        self.shapes = {name: p.shape for name, p in model.bayesian_parameters()}
        n = sum(shape.numel() for shape in self.shapes.values()) + 1
        self.loc = torch.nn.Parameter(torch.zeros(n, dtype=torch.float64))
        self.scale = PyroParam(
            torch.full((n,), 0.1, dtype=torch.float64), dist.constraints.positive
        )

    def forward(self, x, y=None, n_data=None):
        start = 0
        for name, shape in [*self.shapes.items(), ("noise_scale", torch.Size())]:
            part = slice(start, start + shape.numel())
            loc, scale = self.loc[part].reshape(shape), self.scale[part].reshape(shape)
            kind = dist.LogNormal if name == "noise_scale" else dist.Normal
            pyro.sample(name, kind(loc, scale).to_event(len(shape)))
            start += shape.numel()


def hidden(model):
    return poutine.block(model, hide=["y"])


GUIDES = {
    "MeanFieldGuide": MeanFieldGuide,
    "LowRankGuide": lambda model: LowRankGuide(model, rank=2),
    "auto_normal": auto_normal,
    "AutoNormal": lambda model: autoguide.AutoNormal(hidden(model), init_scale=0.05),
    "AutoNormal of the model": autoguide.AutoNormal,
    "AutoDiagonalNormal": lambda m: autoguide.AutoDiagonalNormal(hidden(m), init_scale=0.05),
    "AutoMultivariateNormal": lambda m: autoguide.AutoMultivariateNormal(hidden(m)),
    "AutoLowRankMultivariateNormal": lambda m: autoguide.AutoLowRankMultivariateNormal(hidden(m)),
    "AutoDelta": lambda model: autoguide.AutoDelta(hidden(model)),
    "a function": own_function,
    "a PyroModule": OwnModule,
}


def fitted(name, n_steps=5):
    """Return a network and a guide after some steps of a loop, which leaves the store as it is."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model = network()
    guide = GUIDES[name](model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(n_steps):
        svi.step(TX, TY)
    return model, guide, svi


@pytest.fixture(autouse=True)
def _clean_store():
    yield
    pyro.clear_param_store()


@pytest.mark.parametrize("name", GUIDES)
def test_predictions_are_those_of_pyro_at_the_same_draws(name):
    model, guide, _ = fitted(name)
    model.eval()
    posterior = Posterior.from_guide(model, guide, X)
    draws = posterior.draws(32, seed=3)
    assert set(SITES) - {"0.bias"} <= draws.keys()
    prediction = posterior.predict(X, 32, seed=3)
    outputs = model.output(draws, TX).detach()
    torch.testing.assert_close(torch.tensor(prediction.mean), outputs.mean(0))
    # Pyro's model, conditioned on each draw, has the same density of y.
    log_prob = torch.stack(
        [
            poutine.trace(poutine.condition(model, {n: v[i] for n, v in draws.items()}))
            .get_trace(TX, TY)
            .nodes["y"]["fn"]
            .log_prob(TY)
            for i in range(32)
        ]
    )
    expected = log_prob.logsumexp(0) - np.log(32)
    torch.testing.assert_close(torch.tensor(prediction.log_prob(Y)), expected.detach())


@pytest.mark.parametrize("name", GUIDES)
def test_draws_have_the_moments_of_the_guide_in_pyro(name):
    model, guide, _ = fitted(name, 20)
    posterior = Posterior.from_guide(model, guide, X)
    ours = posterior.draws(4000, seed=0)
    pyro.set_rng_seed(1)
    theirs = Predictive(poutine.uncondition(model), guide=guide, num_samples=400)(TX)
    for site in ("0.weight", "2.bias", "noise_scale"):
        a, b = ours[site].reshape(4000, -1), theirs[site].reshape(400, -1)
        error = b.std(0) * np.sqrt(1 / 400 + 1 / 4000)
        assert ((a.mean(0) - b.mean(0)).abs() <= 5 * error + 1e-9).all()
        assert ((a.std(0) - b.std(0)).abs() <= 5 * error + 1e-9).all()


@pytest.mark.parametrize("name", GUIDES)
def test_further_steps_and_a_cleared_store_do_not_change_the_posterior(name):
    model, guide, svi = fitted(name)
    posterior = Posterior.from_guide(model, guide, X)
    before = posterior.predict(X, 20, seed=0).mean
    for _ in range(3):
        svi.step(TX, TY)
    pyro.clear_param_store()
    np.testing.assert_array_equal(posterior.predict(X, 20, seed=0).mean, before)


@pytest.mark.parametrize("name", GUIDES)
def test_the_loop_goes_on_as_if_nothing_had_been_read(name):
    _, _, svi = fitted(name)
    expected = [svi.step(TX, TY) for _ in range(3)]
    model, guide, svi = fitted(name)
    state = torch.random.get_rng_state()
    keys = set(pyro.get_param_store())
    Posterior.from_guide(model, guide, X).predict(X, 5, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert set(pyro.get_param_store()) == keys
    assert model.training
    assert [svi.step(TX, TY) for _ in range(3)] == expected


@pytest.mark.parametrize("name", ["MeanFieldGuide", "LowRankGuide", "auto_normal", "AutoNormal"])
def test_it_is_saved_and_loaded(name, tmp_path):
    model, guide, _ = fitted(name)
    posterior = Posterior.from_guide(model, guide, X)
    posterior.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior")
    np.testing.assert_array_equal(
        again.predict(X, 20, seed=0).mean, posterior.predict(X, 20, seed=0).mean
    )


def test_a_guide_of_ones_own_is_not_saved(tmp_path):
    model, guide, _ = fitted("a function")
    with pytest.raises(TypeError, match="cannot be saved: only guides of pyrobbb can"):
        Posterior.from_guide(model, guide, X).save(tmp_path / "posterior")


@pytest.mark.parametrize("name", ["MeanFieldGuide", "AutoMultivariateNormal", "a function"])
def test_it_is_diagnosed_and_exported(name):
    model, guide, _ = fitted(name)
    posterior = Posterior.from_guide(model, guide, X)
    diagnosis = posterior.diagnose(X, Y, n_draws=100, seed=0)
    assert diagnosis["ELBO"].verdict == "not measured"
    assert diagnosis["scores"].verdict == "info"
    tree = posterior.to_arviz(X, Y, n_draws=20, seed=0)
    assert tree["log_likelihood"]["y"].sizes["draw"] == 20
    theirs = from_pyro(model=model, guide=guide, args=(TX, TY), num_draws=20, seed=0)
    assert tree["posterior"]["noise_scale"].dims == theirs["posterior"]["noise_scale"].dims
    assert "chain" in repr(posterior)


def test_what_is_no_fitted_guide_of_the_network_is_refused():
    model, guide, _ = fitted("a function")
    other = small_network()
    pairs = [
        ((model, "mean_field", X), TypeError, "`guide` must be a fitted guide, got 'mean_field'"),
        ((model, MeanFieldGuide, X), TypeError, "`guide` must be a fitted guide, got"),
        ((model.net, guide, X), TypeError, "`network` must be a BayesianNetwork, got a Sequential"),
        ((other, guide, X), ValueError, "`guide` must sample '0.bias' of shape"),
        (
            (small_network(2), MeanFieldGuide(other), X),
            ValueError,
            "must sample '2.weight' of shape",
        ),
    ]
    for arguments, error, message in pairs:
        with pytest.raises(error, match=message):
            Posterior.from_guide(*arguments)
    with pytest.raises(ValueError, match="`guide` has not been fitted: it has never been run"):
        Posterior.from_guide(model, autoguide.AutoNormal(model), X)
    without_y = autoguide.AutoNormal(model)
    without_y(TX)
    with pytest.raises(ValueError, match="`guide` must not sample 'y': run it on x and y first"):
        Posterior.from_guide(model, without_y, X)
    pyro.clear_param_store()
    with pytest.raises(ValueError, match=r"has not been fitted: its parameter '0.weight.loc'"):
        Posterior.from_guide(model, guide, X)
    assert not list(pyro.get_param_store())
