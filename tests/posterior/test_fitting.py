"""fit(): repeatable, without side effects, and correct losses."""

import multiprocessing
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyro
import pyro.poutine as poutine
import pytest
import torch
from forks import forking
from pyro.infer import RenyiELBO, Trace_ELBO
from ragged_fits import X, Y, network, quick_fit
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, NonFiniteLossError, likelihoods, mlp, priors


def _numpy_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002  # the global state is tested


def test_seed_makes_a_fit_bitwise_repeatable():
    first, again, other = quick_fit(), quick_fit(), quick_fit(seed=2)
    assert torch.equal(first.guide.loc, again.guide.loc)
    assert torch.equal(first.guide.rho, again.guide.rho)
    np.testing.assert_array_equal(first.history.nelbo, again.history.nelbo)
    assert not torch.equal(first.guide.loc, other.guide.loc)


def test_without_a_seed_one_is_drawn_and_recorded():
    drawn = quick_fit(seed=None)
    assert not torch.equal(drawn.guide.loc, quick_fit(seed=None).guide.loc)
    again = quick_fit(seed=drawn.settings["seed"])
    assert torch.equal(drawn.guide.loc, again.guide.loc)


def test_random_states_and_param_store_of_the_caller_are_unchanged():
    before = torch.random.get_rng_state(), _numpy_state(), random.getstate()
    posterior = quick_fit(guide="auto_normal", validation=(X, Y))
    posterior.predict(X, n_draws=3)
    posterior.draws(3)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(_numpy_state(), before[1])
    assert random.getstate() == before[2]
    assert len(pyro.get_param_store()) == 0


def test_network_is_unchanged_and_can_be_fitted_again():
    """Batch norm has buffers and point parameters, which a fit could change."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    bayesian = BayesianNetwork(net, priors.ByName({"1.*": None}))
    before = {name: value.clone() for name, value in bayesian.state_dict().items()}
    first = quick_fit(bayesian, batch_size=23)
    for name, value in bayesian.state_dict().items():
        assert torch.equal(value, before[name]), name
    learned = first.network.state_dict()
    assert not torch.equal(learned["net.1.weight"], before["net.1.weight"])
    assert not torch.equal(learned["net.1.running_mean"], before["net.1.running_mean"])
    second = quick_fit(bayesian, batch_size=23)
    assert torch.equal(first.guide.loc, second.guide.loc)
    assert bayesian.training
    assert not first.network.training


def test_fits_in_one_process_do_not_affect_each_other():
    alone = quick_fit(network(), guide="auto_normal")
    quick_fit(BayesianNetwork(mlp(3, [9], 1, seed=5)), guide="auto_normal")
    again = quick_fit(network(), guide="auto_normal")
    draws = alone.draws(5, seed=0), again.draws(5, seed=0)
    for name in draws[0]:
        assert torch.equal(draws[0][name], draws[1][name])


def test_fits_in_threads_are_repeatable():
    """Pyro's handlers and torch's random state are global to the process."""
    state = torch.random.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        fits = list(pool.map(lambda seed: quick_fit(seed=seed, guide="auto_normal"), [1, 2, 1, 2]))
        means = list(pool.map(lambda p: p.predict(X, n_draws=5, seed=0).mean, fits))
    alone = quick_fit(seed=1, guide="auto_normal").predict(X, n_draws=5, seed=0).mean
    np.testing.assert_array_equal(means[0], alone)
    np.testing.assert_array_equal(means[2], alone)
    assert not np.array_equal(means[1], alone)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not pyro.settings.get("module_local_params")


@forking
def test_forked_process_has_the_same_fit():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply(_mean_of_a_fit)
    np.testing.assert_array_equal(there, _mean_of_a_fit())


def _mean_of_a_fit():
    return quick_fit().predict(X, n_draws=5, seed=0).mean


def test_fit_inside_a_pyro_program_adds_no_site_to_it():
    conditioned = poutine.condition(data={"noise_scale": torch.tensor(3.0)})
    with poutine.trace() as tracer, poutine.scale(scale=7.0), conditioned:
        inside = quick_fit()
    assert not tracer.trace.nodes
    np.testing.assert_array_equal(inside.history.nelbo, quick_fit().history.nelbo)


def test_submodules_in_evaluation_mode_stay_there():
    frozen = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    bayesian = BayesianNetwork(nn.Sequential(frozen, nn.ReLU(), nn.Linear(4, 1)))
    frozen.eval()
    learned = quick_fit(bayesian, validation=(X, Y)).network.net
    assert torch.equal(learned[0][1].running_mean, torch.zeros(4))
    assert not frozen.training
    assert bayesian.net[2].training


def test_history_has_the_parts_of_the_loss_of_each_step():
    history = quick_fit().history
    assert len(history.nelbo) == 12
    assert history.n_epochs == 3
    np.testing.assert_allclose(history.nelbo, history.nll + history.kl)
    np.testing.assert_array_equal(history.epoch, np.repeat([0, 1, 2], 4))
    epochs = history.per_epoch()
    by_hand = (history.nelbo[:4] * [7, 7, 7, 2]).sum() / 23
    assert epochs.nelbo[0] == pytest.approx(by_hand)


def test_losses_in_the_history_agree_with_pyro():
    net = network()
    guide = MeanFieldGuide(net)
    posterior = quick_fit(net, guide=guide, epochs=1, batch_size=23, lr=1e-12, seed=5)
    expected = []
    for _ in range(500):
        expected.append(Trace_ELBO().loss(net, guide, torch.as_tensor(X), torch.as_tensor(Y)))
    assert abs(posterior.history.nelbo[0] - np.mean(expected)) < 5 * np.std(expected)
    many = quick_fit(net, guide=MeanFieldGuide(net), epochs=1, batch_size=23, n_particles=500)
    error = np.std(expected) * np.sqrt(1 / 500 + 1 / 500)
    assert abs(many.history.nelbo[0] - np.mean(expected)) < 4 * error


@pytest.mark.parametrize(
    ("objective", "kl_weight"),
    [
        ("trace", "uniform"),
        ("mean_field", "blundell"),
        (RenyiELBO(alpha=0.5, num_particles=2), "uniform"),
        pytest.param("trace", "blundell", marks=pytest.mark.slow),
        pytest.param("mean_field", "uniform", marks=pytest.mark.slow),
        pytest.param(RenyiELBO(alpha=0.5, num_particles=2), "blundell", marks=pytest.mark.slow),
    ],
)
def test_each_objective_and_kl_weight_lowers_the_loss(objective, kl_weight):
    history = quick_fit(
        objective=objective, kl_weight=kl_weight, epochs=150, lr=0.03, batch_size=8
    ).history.per_epoch()
    assert history.nelbo[-10:].mean() < history.nelbo[:10].mean() - 5


def test_non_finite_loss_stops_the_fit_and_names_the_step():
    with pytest.raises(NonFiniteLossError, match=r"step \d+: .* Try a smaller `lr`"):
        quick_fit(lr=1e30)


def test_module_that_returns_nan_is_reported_with_step_and_site():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, x):
            self.calls += self.training
            return self.net(x) * (torch.nan if self.calls > 4 else 1.0)

    with pytest.raises(NonFiniteLossError, match=r"at step 4: .*'y' in the model"):
        quick_fit(BayesianNetwork(Fragile()))


def test_density_that_overflows_is_reported_with_its_site():
    net = BayesianNetwork(nn.Linear(1, 1), likelihood=likelihoods.Poisson())
    with pytest.raises(NonFiniteLossError, match=r"at step 0: .*'y'"):
        quick_fit(net, np.full((5, 1), 1e4), np.ones((5, 1)))
