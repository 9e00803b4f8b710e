"""fit(): what it steps on, what it leaves alone, when it stops, and what it says."""

import itertools
import multiprocessing
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyro
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import JitTrace_ELBO, RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from pyro.nn import PyroModule
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyrobbb import (
    BayesianNetwork,
    MeanFieldGuide,
    NonFiniteLossError,
    fit,
    likelihoods,
    mlp,
    priors,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3)).astype(np.float32)
Y = X.sum(1, keepdims=True)


def network(**kwargs):
    return BayesianNetwork(mlp(3, [4], 1, seed=0), **kwargs)


def quick_fit(net=None, x=X, y=Y, **kwargs):
    kwargs = {"epochs": 3, "batch_size": 7, "kl_warmup": 0, "seed": 1, "progress": False, **kwargs}
    return fit(network() if net is None else net, x, y, **kwargs)


class RecordedSGD(torch.optim.SGD):
    """Plain gradient descent that keeps the learning rates and gradients of its steps."""

    seen = ()

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        type(self).seen = []

    def step(self, closure=None):
        group = self.param_groups[0]
        type(self).seen.append((group["lr"], [p.grad.clone() for p in group["params"]]))
        return super().step(closure)


def _numpy_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002  # the global state is the subject


# Repeatability, and what is left alone


def test_a_seed_makes_a_fit_bitwise_repeatable():
    first, again, other = quick_fit(), quick_fit(), quick_fit(seed=2)
    assert torch.equal(first.guide.loc, again.guide.loc)
    assert torch.equal(first.guide.rho, again.guide.rho)
    np.testing.assert_array_equal(first.history.nelbo, again.history.nelbo)
    assert not torch.equal(first.guide.loc, other.guide.loc)


def test_without_a_seed_one_is_drawn_and_kept():
    drawn = quick_fit(seed=None)
    assert not torch.equal(drawn.guide.loc, quick_fit(seed=None).guide.loc)
    again = quick_fit(seed=drawn.settings["seed"])
    assert torch.equal(drawn.guide.loc, again.guide.loc)


def test_the_callers_random_states_and_the_param_store_are_left_alone():
    """Trap 11."""
    before = torch.random.get_rng_state(), _numpy_state(), random.getstate()
    posterior = quick_fit(guide="auto_normal", validation=(X, Y))
    posterior.predict(X, n_draws=3)
    posterior.draws(3)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(_numpy_state(), before[1])
    assert random.getstate() == before[2]
    assert len(pyro.get_param_store()) == 0


def test_the_network_given_is_not_changed_and_may_be_fitted_again():
    """Trap 11: batch norm keeps buffers and point parameters, which a fit would leave behind."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    bayesian = BayesianNetwork(net, priors.ByName({"1.*": None}))
    before = {name: value.clone() for name, value in bayesian.state_dict().items()}
    first = quick_fit(bayesian, batch_size=23)
    for name, value in bayesian.state_dict().items():
        assert torch.equal(value, before[name]), name
    learnt = first.network.state_dict()
    assert not torch.equal(learnt["net.1.weight"], before["net.1.weight"])
    assert not torch.equal(learnt["net.1.running_mean"], before["net.1.running_mean"])
    second = quick_fit(bayesian, batch_size=23)
    assert torch.equal(first.guide.loc, second.guide.loc)
    assert bayesian.training
    assert not first.network.training


def test_two_fits_side_by_side_do_not_see_each_other():
    """Trap 11."""
    alone = quick_fit(network(), guide="auto_normal")
    quick_fit(BayesianNetwork(mlp(3, [9], 1, seed=5)), guide="auto_normal")
    beside = quick_fit(network(), guide="auto_normal")
    draws = alone.draws(5, seed=0), beside.draws(5, seed=0)
    for name in draws[0]:
        assert torch.equal(draws[0][name], draws[1][name])


def test_threads_take_turns():
    """Trap 11: Pyro's handlers and torch's random state belong to the process."""
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_fits_the_same():
    """Trap 11."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply(_mean_of_a_fit)
    np.testing.assert_array_equal(there, _mean_of_a_fit())


def _mean_of_a_fit():
    return quick_fit().predict(X, n_draws=5, seed=0).mean


def test_a_fit_inside_another_pyro_program_leaves_no_site_there():
    conditioned = poutine.condition(data={"noise_scale": torch.tensor(3.0)})
    with poutine.trace() as tracer, poutine.scale(scale=7.0), conditioned:
        inside = quick_fit()
    assert not tracer.trace.nodes
    np.testing.assert_array_equal(inside.history.nelbo, quick_fit().history.nelbo)


def test_parts_that_the_user_put_into_evaluation_mode_stay_there():
    frozen = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    bayesian = BayesianNetwork(nn.Sequential(frozen, nn.ReLU(), nn.Linear(4, 1)))
    frozen.eval()
    learnt = quick_fit(bayesian, validation=(X, Y)).network.net
    assert torch.equal(learnt[0][1].running_mean, torch.zeros(4))
    assert not frozen.training
    assert bayesian.net[2].training


# What a step is made of


def nearly_noiseless_network():
    net = mlp(3, [4], 1, seed=0).double()
    return BayesianNetwork(net, priors.FanInNormal(), likelihoods.Gaussian(1.0))


def gradient_of_loc(**kwargs):
    """Give the gradient of the first step with respect to loc, almost without noise."""
    net = nearly_noiseless_network()
    guide = MeanFieldGuide(net, init_scale=1e-9)
    quick_fit(net, guide=guide, epochs=1, optimizer=RecordedSGD, lr=1e-12, **kwargs)
    return RecordedSGD.seen[0][1][0]


def test_the_kl_weight_scales_the_prior_and_not_the_likelihood():
    none = gradient_of_loc(batch_size=23, kl_weight=lambda i, m: 0.0)
    full = gradient_of_loc(batch_size=23)
    double = gradient_of_loc(batch_size=23, kl_weight=lambda i, m: 2.0)
    net = mlp(3, [4], 1, seed=0).double()
    flat = torch.cat([p.flatten() for p in net.parameters()])
    gain = torch.cat(
        [p.new_full((p.numel(),), 1 / (p.shape[1] if p.dim() > 1 else 1)) for p in net.parameters()]
    )
    # With next to no noise, eps sigmoid(rho) (...) is 0 and d_mu is -dlogP(w)/dw: w / scale^2.
    torch.testing.assert_close(full - none, flat / gain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(double - none, 2 * flat / gain, rtol=1e-6, atol=1e-6)


def gradients_of_an_epoch(**kwargs):
    """Give the gradients with respect to loc of an epoch in batches of 7, 7, 7 and 2 rows."""
    gradient_of_loc(batch_size=7, **kwargs)
    steps = [gradients[0] for _, gradients in RecordedSGD.seen]
    assert len(steps) == 4
    return torch.stack(steps)


def test_the_batches_of_an_epoch_add_up_to_the_whole_likelihood():
    """Trap 1: each step is N / 7 times its own rows' gradient, a ragged one in proportion."""
    whole = gradient_of_loc(batch_size=23, kl_weight=lambda i, m: 0.0)
    steps = gradients_of_an_epoch(kl_weight=lambda i, m: 0.0)
    torch.testing.assert_close(steps.sum(0) * 7 / 23, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kl_weight", ["uniform", "blundell", lambda i, m: i / 10])
def test_the_batches_of_an_epoch_count_the_kl_once(kl_weight):
    """Trap 1, ragged last batch included, for any weights that sum to 1."""
    full = gradient_of_loc(batch_size=23) - gradient_of_loc(
        batch_size=23, kl_weight=lambda i, m: 0.0
    )
    none = gradients_of_an_epoch(kl_weight=lambda i, m: 0.0)
    pulls = (gradients_of_an_epoch(kl_weight=kl_weight) - none) * 7 / 23
    torch.testing.assert_close(pulls.sum(0), full, rtol=1e-6, atol=1e-5)
    shares = pulls.norm(dim=1) / full.norm()
    expected = {"uniform": [7 / 23, 7 / 23, 7 / 23, 2 / 23], "blundell": [8, 4, 2, 1]}.get(
        kl_weight, [1, 2, 3, 4]
    )
    expected = torch.tensor(expected).double()
    torch.testing.assert_close(shares, expected / expected.sum(), rtol=1e-4, atol=1e-5)


def test_each_row_is_seen_once_an_epoch_in_a_new_order():
    class Recording(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.rows = nn.Linear(1, 1), []

        def forward(self, x):
            if self.training:
                self.rows.extend(x[:, 0].tolist())
            return self.net(x)

    seen = []
    module = Recording()
    module.rows = seen
    x = np.arange(23, dtype=np.float32)[:, None]
    posterior = quick_fit(BayesianNetwork(module), x, x, epochs=2)
    rows = posterior.network.net.rows
    first, second = rows[:23], rows[23:46]
    assert sorted(first) == sorted(second) == x[:, 0].tolist()
    assert first != second
    np.testing.assert_array_equal(posterior.history.n_rows, [7, 7, 7, 2] * 2)


def test_history_holds_the_parts_of_the_loss_for_each_step_and_epoch():
    history = quick_fit().history
    assert len(history.nelbo) == 12
    assert history.n_epochs == 3
    np.testing.assert_allclose(history.nelbo, history.nll + history.kl)
    np.testing.assert_array_equal(history.epoch, np.repeat([0, 1, 2], 4))
    epochs = history.per_epoch()
    by_hand = (history.nelbo[:4] * [7, 7, 7, 2]).sum() / 23
    assert epochs.nelbo[0] == pytest.approx(by_hand)


def test_history_is_the_loss_that_stock_pyro_computes():
    net = network()
    guide = MeanFieldGuide(net)
    posterior = quick_fit(net, guide=guide, epochs=1, batch_size=23, lr=1e-12, seed=5)
    expected = []
    for _ in range(2000):
        expected.append(Trace_ELBO().loss(net, guide, torch.as_tensor(X), torch.as_tensor(Y)))
    assert abs(posterior.history.nelbo[0] - np.mean(expected)) < 5 * np.std(expected)
    many = quick_fit(net, guide=MeanFieldGuide(net), epochs=1, batch_size=23, n_particles=500)
    error = np.std(expected) * np.sqrt(1 / 2000 + 1 / 500)
    assert abs(many.history.nelbo[0] - np.mean(expected)) < 4 * error


def test_the_history_of_a_weighted_step_shows_the_whole_kl():
    light = quick_fit(epochs=1, batch_size=23, kl_weight=lambda i, m: 1e-6).history
    full = quick_fit(epochs=1, batch_size=23).history
    np.testing.assert_allclose(light.kl, full.kl, rtol=1e-5)
    np.testing.assert_allclose(light.nll, full.nll, rtol=1e-5)


def test_the_learning_rate_follows_its_schedule():
    quick_fit(optimizer=RecordedSGD, lr=1e-9, schedule=lambda part: 1 + part, epochs=2)
    rates = [lr for lr, _ in RecordedSGD.seen]
    np.testing.assert_allclose(rates, 1e-9 * (1 + np.arange(8) / 8))


@pytest.mark.parametrize(
    ("schedule", "first", "highest", "last"),
    [("constant", 1, 1, 1), ("cosine", 1, 1, 0), ("one_cycle", 0.04, 1, 0)],
)
def test_named_schedules_begin_and_end_where_they_say(schedule, first, highest, last):
    quick_fit(optimizer=RecordedSGD, lr=1e-9, schedule=schedule, epochs=100, batch_size=23)
    rates = np.array([lr for lr, _ in RecordedSGD.seen]) / 1e-9
    assert rates[0] == pytest.approx(first)
    assert rates.max() == pytest.approx(highest, abs=1e-3)
    assert rates[-1] == pytest.approx(last, abs=1e-3)


def test_kl_warm_up_rises_to_the_full_weight():
    def pull(epoch):  # of the prior on loc, in the full-batch step of an epoch
        warm, cold = (RecordedSGD.seen, none)
        return float((warm[epoch][1][0] - cold[epoch][1][0]).norm())

    def run(**kwargs):
        net = nearly_noiseless_network()
        guide = MeanFieldGuide(net, init_scale=1e-9)
        quick_fit(
            net, guide=guide, epochs=6, batch_size=23, optimizer=RecordedSGD, lr=1e-12, **kwargs
        )
        return RecordedSGD.seen

    none = run(kl_weight=lambda i, m: 0.0)
    run(kl_warmup=0.5)
    pulls = np.array([pull(epoch) for epoch in range(6)])
    np.testing.assert_allclose(pulls / pulls[-1], [0, 1 / 3, 2 / 3, 1, 1, 1], rtol=1e-5)


def test_the_gradient_is_clipped_as_a_whole():
    quick_fit(optimizer=RecordedSGD, lr=1e-9, clip_norm=0.5)
    for _, gradients in RecordedSGD.seen:
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert float(norm) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("kl_weight", ["uniform", "blundell"])
@pytest.mark.parametrize(
    "objective", ["trace", "mean_field", RenyiELBO(alpha=0.5, num_particles=2)]
)
def test_any_objective_and_kl_weight_lowers_the_loss(objective, kl_weight):
    history = quick_fit(
        objective=objective, kl_weight=kl_weight, epochs=150, lr=0.03, batch_size=8
    ).history.per_epoch()
    assert history.nelbo[-10:].mean() < history.nelbo[:10].mean() - 5


# Guides


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_named_guides_learn(guide):
    history = quick_fit(guide=guide, epochs=100, lr=0.03).history.per_epoch()
    assert history.nelbo[-10:].mean() < history.nelbo[:10].mean() - 5


def test_a_stock_autoguide_and_a_guide_of_ones_own_learn():
    net = network(likelihood=likelihoods.Gaussian(0.5))
    pyro.get_param_store()["AutoLowRankMultivariateNormal.loc"] = torch.zeros(2)  # another's
    posterior = quick_fit(net, guide=AutoLowRankMultivariateNormal(net), epochs=50, lr=0.03)
    assert posterior.history.nelbo[-5:].mean() < posterior.history.nelbo[:5].mean()
    assert posterior.predict(X, n_draws=4).mean.shape == (23, 1)
    assert list(pyro.get_param_store()) == ["AutoLowRankMultivariateNormal.loc"]

    class PointMass(PyroModule):
        def __init__(self):
            super().__init__()
            self.points = {name: name.replace(".", "_") for name, _ in net.bayesian_parameters()}
            for name, parameter in net.bayesian_parameters():
                setattr(self, self.points[name], nn.Parameter(parameter.detach().clone()))

        def forward(self, x, y=None, n_data=None):
            for name, attribute in self.points.items():
                value = getattr(self, attribute)
                pyro.sample(name, pyro.distributions.Delta(value, event_dim=value.dim()))

    own = quick_fit(net, guide=PointMass(), epochs=50, lr=0.03)
    nll = own.history.per_epoch().nll
    assert nll[-5:].mean() < nll[:5].mean() / 2
    assert (own.predict(X, n_draws=4).epistemic_sd == 0).all()


# Validation


def test_validation_keeps_the_best_parameters_and_patience_stops():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))  # nothing to learn but noise
    net = BayesianNetwork(mlp(3, [30], 1, seed=0), None, likelihoods.Gaussian(0.1))
    posterior = fit(
        net,
        x,
        y,
        epochs=300,
        lr=0.03,
        kl_warmup=0,
        validation=(x[::-1], y),
        patience=5,
        seed=0,
        progress=False,
    )
    nll = posterior.history.validation_nll
    best = int(nll.argmin())
    assert len(nll) == posterior.history.n_epochs == best + 1 + 5 < 300
    # The same 16 draws from the guide that was kept give the lowest score again.
    again = posterior.predict(x[::-1], n_draws=16, seed=0).log_prob(y)
    assert -again.mean() == pytest.approx(nll[best], rel=1e-5)


def test_epochs_of_the_warm_up_are_not_kept_however_well_they_score():
    net = network(likelihood=likelihoods.Gaussian(1.0))
    posterior = quick_fit(net, epochs=20, lr=0.3, kl_warmup=0.5, validation=(X, -Y), patience=2)
    nll = posterior.history.validation_nll
    assert nll.argmin() < 10  # the target is upside down: each epoch is worse than the last
    best = 10 + nll[10:].argmin()
    assert len(nll) == best + 1 + 2
    again = posterior.predict(X, n_draws=16, seed=1).log_prob(-Y)
    assert -again.mean() == pytest.approx(nll[best], rel=1e-5)


def test_validation_restores_point_parameters_and_buffers():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    bayesian = BayesianNetwork(net, priors.ByName({"1.*": None}))
    posterior = quick_fit(bayesian, batch_size=23, epochs=30, lr=0.3, validation=(X, -Y))
    best = posterior.history.validation_nll.min()
    again = posterior.predict(X, n_draws=16, seed=1).log_prob(-Y)
    assert -again.mean() == pytest.approx(best, rel=1e-5)


# Data loaders


def test_a_data_loader_takes_the_same_steps_as_arrays_in_the_same_order():
    data = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    loader = DataLoader(data, batch_size=23)
    by_loader = quick_fit(x=loader, y=None, n_data=23)
    by_array = quick_fit(batch_size=23)
    np.testing.assert_array_equal(by_loader.history.n_rows, by_array.history.n_rows)
    np.testing.assert_allclose(by_loader.history.nll[0], by_array.history.nll[0], rtol=0.5)
    ragged = quick_fit(x=DataLoader(data, batch_size=7, shuffle=True), y=None, n_data=23)
    np.testing.assert_array_equal(ragged.history.n_rows, [7, 7, 7, 2] * 3)
    again = quick_fit(x=DataLoader(data, batch_size=7, shuffle=True), y=None, n_data=23)
    assert torch.equal(ragged.guide.loc, again.guide.loc)


def test_a_stream_without_an_end_is_refused_until_it_is_cut_into_epochs():
    class Stream(IterableDataset):
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            endless = iter(lambda: (torch.randn(3), torch.randn(1)), None)
            return itertools.islice(endless, self.n)

    with pytest.raises(ValueError, match=r"`n_data` is 20, .* yields more rows .*islice"):
        quick_fit(x=DataLoader(Stream(None), batch_size=8), y=None, n_data=20)
    posterior = quick_fit(x=DataLoader(Stream(20), batch_size=8), y=None, n_data=20)
    np.testing.assert_array_equal(posterior.history.n_rows, [8, 8, 4] * 3)


def test_bad_rows_of_a_data_loader_are_found():
    x = torch.as_tensor(X).clone()
    x[11, 1] = torch.nan
    loader = DataLoader(TensorDataset(x, torch.as_tensor(Y)), batch_size=7)
    with pytest.raises(ValueError, match=r"`x` has 1 value\(s\) that are NaN .* row 4, column 1"):
        quick_fit(x=loader, y=None, n_data=23)


# Ends that are not the end


def test_a_non_finite_loss_stops_at_once_and_says_where():
    with pytest.raises(NonFiniteLossError, match=r"step \d+: .* Try a smaller `lr`"):
        quick_fit(lr=1e30)


def test_a_module_that_gives_nan_is_named_with_the_step():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = nn.Linear(3, 1), 0

        def forward(self, x):
            self.calls += self.training
            return self.net(x) * (torch.nan if self.calls > 4 else 1.0)

    with pytest.raises(NonFiniteLossError, match=r"at step 4: .*'y' in the model"):
        quick_fit(BayesianNetwork(Fragile()))


def test_a_density_that_overflows_is_named():
    net = BayesianNetwork(nn.Linear(1, 1), likelihood=likelihoods.Poisson())
    with pytest.raises(NonFiniteLossError, match=r"at step 0: .*'y'"):
        quick_fit(net, np.full((5, 1), 1e4), np.ones((5, 1)))


def test_ctrl_c_gives_what_has_been_fitted_so_far(caplog):
    class Interrupting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = nn.Linear(3, 1), 0

        def forward(self, x):
            self.calls += self.training
            if self.training and self.calls == 6:
                raise KeyboardInterrupt
            return self.net(x)

    posterior = quick_fit(BayesianNetwork(Interrupting()))
    assert len(posterior.history.nelbo) == len(posterior.history.n_rows) == 5
    assert "Interrupted after 5 steps" in caplog.text
    assert np.isfinite(posterior.predict(X).mean).all()


def test_the_progress_bar_shows_the_loss_and_its_parts(capsys):
    quick_fit(progress=True)
    shown = capsys.readouterr()
    assert all(word in shown.err for word in ("nelbo=", "nll=", "kl=", "3/3"))
    assert shown.out == ""


# Mistakes


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            X,
            Y[:, 0],
            ValueError,
            r"`y` has shape \(23,\), .* Pass y.reshape\(-1, 1\)\.",
        ),
        (X, Y[:5], ValueError, "`x` and `y` must have the same number of rows, got 23 and 5"),
        (X[:, :2], Y, ValueError, r"`x` with rows of shape \(2,\) .* does not fit the network"),
        (X[:, 0], Y, ValueError, r"does not fit the network\. Pass x\.reshape\(-1, 1\) if"),
        (X * np.nan, Y, ValueError, r"`x` has 69 value\(s\) .* first at row 0, column 0"),
        (X, Y * np.inf, ValueError, r"`y` has 23 value\(s\) that are NaN or infinite"),
        (X, ["a"] * 23, TypeError, "`y` must hold numbers, got .*'a'"),
        (X[:0], Y[:0], ValueError, r"`x` is empty: it has shape \(0, 3\)"),
        (X, None, ValueError, "`y` is missing"),
    ],
)
def test_a_first_attempt_that_goes_wrong_gets_one_line(x, y, error, message):
    with pytest.raises(error, match=message) as caught:
        quick_fit(x=x, y=y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lr": 0}, ValueError, "`lr` must be positive, got 0"),
        ({"lr": "fast"}, TypeError, "`lr` must be a number, got 'fast'"),
        ({"epochs": 0}, ValueError, "`epochs` must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "`epochs` must be a whole number, got 1.5"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        (
            {"kl_warmup": 2},
            ValueError,
            r"`kl_warmup` must lie in \[0, 1\), got 2",
        ),
        ({"clip_norm": -1.0}, ValueError, "`clip_norm` must be positive"),
        ({"n_particles": 0}, ValueError, "`n_particles` must be at least 1"),
        ({"engine": "warp"}, ValueError, "`engine` must be one of auto, svi, fused, compiled"),
        ({"objective": "iwae"}, ValueError, "`objective` must be one of trace, mean_field"),
        ({"kl_weight": "cosine"}, ValueError, "`kl_weight` must be 'uniform', 'blundell'"),
        ({"schedule": "step"}, ValueError, "`schedule` must be one of one_cycle, cosine"),
        ({"guide": "full_rank"}, ValueError, "`guide` must be 'mean_field', 'auto_normal'"),
        ({"patience": 3}, ValueError, "`patience` needs `validation`"),
        ({"validation": (X, Y[:3])}, ValueError, "`validation`: `x` and `y`"),
        ({"validation": X}, TypeError, r"`validation` must be a pair \(x, y\), got a ndarray"),
        ({"optimizer": "adam"}, TypeError, "`optimizer` must be a class such as torch.optim.Adam"),
        ({"guide": MeanFieldGuide}, ValueError, "`guide` must be 'mean_field', 'auto_normal' or"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
        ({"seed": 1.5}, TypeError, "`seed` must be a whole number, got 1.5"),
        ({"objective": JitTrace_ELBO()}, ValueError, "use the objective without Jit"),
        ({"n_data": 99}, ValueError, "`n_data` is 99, but x has 23 rows"),
        (
            {"objective": Trace_ELBO(num_particles=2), "n_particles": 3},
            ValueError,
            "`n_particles` is 3, but the objective has num_particles=2",
        ),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        quick_fit(**change)


def test_a_last_batch_of_one_row_is_refused_where_batch_norm_would_fail_on_it():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="`batch_size` 11 leaves a last batch of 1 of the 23 rows"):
        quick_fit(BayesianNetwork(net), batch_size=11)
    quick_fit(BayesianNetwork(net), batch_size=10, guide="auto_normal")


def test_a_guide_from_which_nothing_would_be_learnt_is_refused():
    def by_pyro_param(x, y=None, n_data=None):
        pyro.param("loc", torch.zeros(3))

    with pytest.raises(ValueError, match=r"`guide` has no parameters to fit: make it a Pyro"):
        quick_fit(guide=by_pyro_param)

    class Silent(nn.Linear):
        def forward(self, x, y=None, n_data=None):
            for name, parameter in network().bayesian_parameters():
                pyro.sample(name, pyro.distributions.Delta(parameter, event_dim=parameter.dim()))
            pyro.sample("noise_scale", pyro.distributions.LogNormal(self.bias[0], 1.0))

    with pytest.raises(ValueError, match="`guide` registers no parameters with Pyro"):
        quick_fit(guide=Silent(1, 1))


def test_a_loader_without_n_data_and_a_bare_module_are_refused():
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)))
    with pytest.raises(ValueError, match="`n_data`, the size of the data set, must be given"):
        quick_fit(x=loader, y=None)
    with pytest.raises(ValueError, match="`y` must be left out"):
        quick_fit(x=loader, y=Y, n_data=23)
    with pytest.raises(TypeError, match=r"`x` must be a DataLoader of pairs"):
        quick_fit(x=DataLoader(torch.as_tensor(X)), y=None, n_data=23)
    with pytest.raises(TypeError, match=r"`network` must be a BayesianNetwork, got Sequential"):
        quick_fit(mlp(3, [4], 1))
