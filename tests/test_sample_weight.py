"""Weighted rows: a row of weight k counts as k rows, with each engine."""

import copy
import functools

import numpy as np
import pyro
import pytest
import support
import torch
from conjugate import N_IN, NOISE, LinearRegression
from engine_fits import python_loop
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from support import X, Y, small_network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import (
    FusedELBO,
    MeanFieldGuide,
    compare_with_nuts,
    fit,
    likelihoods,
    priors,
)
from pyrobbb.engines import compiled as compiled_engine
from pyrobbb.engines.base import Steps
from pyrobbb.engines.fused import Chain, FusedEngine
from pyrobbb.engines.svi import SVIEngine

RNG = np.random.default_rng(1)
COUNTS = RNG.integers(0, 4, size=23)  # 0 among them
ENGINES = ["svi", "fused", pytest.param("compiled", marks=pytest.mark.slow)]
quick_fit = functools.partial(support.quick_fit, epochs=8, batch_size=1000, engine="auto")
assert_same_fit = functools.partial(support.assert_same_fit, rtol=1e-9)


# A weight is a number of rows


def moved_guide(net):
    torch.manual_seed(0)
    guide = MeanFieldGuide(net)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return guide


LIKELIHOODS = {
    "Gaussian": (likelihoods.Gaussian(), 1, Y),
    "two columns": (likelihoods.StudentT(), 2, np.hstack([Y, -Y])),
    "Categorical": (likelihoods.Categorical(), 3, RNG.integers(0, 3, size=23)),
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize("objective", ["trace", "mean_field"])
@pytest.mark.parametrize("by", ["Pyro", "FusedELBO"])
def test_loss_and_gradients_are_those_of_repeated_rows(by, objective, n_particles, likelihood):
    a_likelihood, n_out, y = LIKELIHOODS[likelihood]
    prior = priors.ByName({"2.bias": None}, default=priors.Normal())
    net = small_network(n_out, prior=prior, likelihood=a_likelihood)
    guide = moved_guide(net)
    x, y = net.prepare(X, y)
    kind = {"trace": Trace_ELBO, "mean_field": TraceMeanField_ELBO}[objective]
    plain = kind(
        num_particles=n_particles, vectorize_particles=n_particles > 1, max_plate_nesting=1
    )
    weighted = FusedELBO(objective, n_particles) if by == "FusedELBO" else plain
    times = torch.as_tensor(COUNTS)
    tensors = [*guide.parameters(), *(point for _, point in net.point_parameters())]
    results = []
    for elbo, arguments, options in (
        (weighted, (x, y), {"row_weight": times.double()}),
        (plain, (x.repeat_interleave(times, 0), y.repeat_interleave(times, 0)), {}),
    ):
        pyro.set_rng_seed(7)
        loss = elbo.differentiable_loss(net, guide, *arguments, **options)
        results.append((loss.detach(), torch.autograd.grad(loss, tensors)))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"restarts": 2}, {"n_particles": 3}], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_batch_fit_is_that_of_repeated_rows(engine, options):
    x, y = (np.repeat(values, COUNTS, axis=0) for values in (X, Y))
    options = {"engine": engine, **options}
    weighted = quick_fit(sample_weight=COUNTS, **options)
    assert weighted.chains[0].settings["engine"] == engine
    assert_same_fit(weighted, quick_fit(x=x, y=y, **options))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_of_weight_0_has_no_effect(engine):
    keep = np.arange(23) % 4 > 0
    weighted = quick_fit(sample_weight=keep, engine=engine)
    assert_same_fit(weighted, quick_fit(x=X[keep], y=Y[keep], engine=engine))


@pytest.mark.parametrize("batch_size", [10, 23])
@pytest.mark.parametrize("engine", ENGINES)
def test_weights_of_1_change_nothing(engine, batch_size):
    options = {"engine": engine, "batch_size": batch_size}
    assert_same_fit(quick_fit(sample_weight=np.ones(23), **options), quick_fit(**options))


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_rows_are_weighted_where_each_has_its_own_draws(estimator):
    """Twice the weight doubles the nll, with the same noise."""
    fits = [
        quick_fit(
            sample_weight=w, estimator=estimator, engine="fused", lr=1e-12, epochs=3, batch_size=10
        )
        for w in (COUNTS, 2 * COUNTS, None)
    ]
    once, twice, unweighted = (posterior.history.nll for posterior in fits)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)
    assert (abs(once / unweighted - 1) > 1e-3).all()


def test_weights_are_not_normalised_but_sharpen_the_posterior():
    problem = LinearRegression.simulate(40, seed=0)
    scales = []
    for w in (1.0, 100.0):
        weight = np.full(40, w)
        posterior = fit(
            problem.network, problem.x, problem.y, sample_weight=weight, seed=0, progress=False
        )
        scales.append(posterior.guide.scale.detach())
    assert (scales[1] < 0.15 * scales[0]).all()


# Minibatches


class FixedNoise(FusedEngine):
    """Engine with the noise that Pyro draws after `torch.manual_seed(7)`."""

    def advance_noise(self, n_steps):
        torch.manual_seed(7)
        return torch.stack([self.loss.noise() for _ in range(n_steps)])

    def noise_at(self, positions, *, functional=False):
        return positions


def by_svi(net, guide):
    parameters = [*guide.parameters(), *(p for _, p in net.point_parameters())]
    options = {"elbo": Trace_ELBO(), "optimizer": torch.optim.SGD, "parameters": parameters}
    return SVIEngine(net, guide, **options)


def by_fused(net, guide):
    return FixedNoise(
        [Chain(net, guide, seed=0)],
        closed_form_kl=False,
        estimator="reparam",
        n_particles=1,
        optimizer=torch.optim.SGD,
    )


@pytest.mark.parametrize("make_engine", [by_svi, by_fused])
def test_the_steps_of_an_epoch_average_to_the_objective_of_repeated_rows(make_engine):
    """In plain gradient descent, a step is minus the gradient. Batches of 10, 10 and 3 rows."""
    net = small_network(prior=priors.ByName({"2.bias": None}, default=priors.Normal()))
    guide = moved_guide(net)
    x, y = net.prepare(X, Y)
    order = torch.cat([torch.randperm(23), torch.arange(7)]).reshape(3, 10)
    n_rows = np.array([10, 10, 3])
    steps = Steps(
        x,
        y,
        order,
        n_rows,
        n_data=23,
        kl_weight=np.ones(3),
        step_weight=n_rows / 10,
        lr=np.ones(3),
        row_weight=torch.as_tensor(COUNTS).double(),
    )
    share = n_rows / 23
    gradients, losses = [], np.full((3, 2, 1), np.nan)
    for i in range(3):
        net_i, guide_i = copy.deepcopy(net), copy.deepcopy(guide)
        parameters = [*guide_i.parameters(), *(p for _, p in net_i.point_parameters())]
        before = [p.detach().clone() for p in parameters]
        torch.manual_seed(7)
        engine = make_engine(net_i, guide_i)
        engine.run(steps[i : i + 1], losses[i : i + 1])
        gradients.append([b - a.detach() for b, a in zip(before, parameters, strict=True)])
    mean = [sum(parts) * 10 / 23 for parts in zip(*gradients, strict=True)]

    times = torch.as_tensor(COUNTS)
    repeated = (x.repeat_interleave(times, 0), y.repeat_interleave(times, 0))
    pyro.set_rng_seed(7)
    loss = Trace_ELBO().differentiable_loss(net, guide, *repeated)
    tensors = [*guide.parameters(), *(p for _, p in net.point_parameters())]
    expected = torch.autograd.grad(loss, tensors)
    torch.testing.assert_close(mean, list(expected), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose((share * losses.sum((1, 2))).sum(), loss.item(), rtol=1e-12)


@pytest.mark.parametrize(
    ("is_compiled", "batch_size", "restarts"),
    [
        pytest.param(
            is_compiled,
            batch_size,
            restarts,
            marks=pytest.mark.slow if is_compiled and (batch_size == 23) == (restarts == 3) else (),
        )
        for is_compiled in (False, True)
        for batch_size in (10, 23)
        for restarts in (1, 3)
    ],
)
def test_the_compiled_step_weighs_rows_as_the_fused_does(
    monkeypatch, is_compiled, batch_size, restarts
):
    if not is_compiled:
        monkeypatch.setattr(compiled_engine, "compile_loop", python_loop)
    options = {"sample_weight": COUNTS, "batch_size": batch_size, "restarts": restarts}
    compiled, fused = (quick_fit(engine=name, **options) for name in ("compiled", "fused"))
    assert compiled.chains[0].settings["engine"] == "compiled"
    assert_same_fit(compiled, fused)


# A closed form


@pytest.mark.parametrize("batch_size", [15, 40])
def test_a_weighted_linear_regression_has_its_conjugate_posterior(batch_size):
    """The best mean-field normal has the exact mean, and 1 / sqrt of the precision's diagonal."""
    problem = LinearRegression.simulate(40, seed=0)
    weight = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    design, y = problem.design, problem.y[:, 0]
    precision = design.T @ (weight[:, None] * design) / NOISE**2 + torch.eye(N_IN + 1).double()
    mean = torch.linalg.solve(precision, design.T @ (weight * y) / NOISE**2)
    scale = precision.diagonal() ** -0.5
    posterior = fit(
        problem.network,
        problem.x,
        problem.y,
        sample_weight=weight,
        batch_size=batch_size,
        n_particles=8,
        epochs=6000 * batch_size // 40,
        objective="mean_field",
        engine="fused",
        seed=0,
        progress=False,
    )
    assert (((posterior.guide.loc - mean) / scale).abs() < 0.1).all()
    torch.testing.assert_close(posterior.guide.scale.detach(), scale, rtol=0.03, atol=0)
    unweighted, _ = problem.exact()
    assert ((unweighted - mean).abs() > 0.1 * scale).any()


# Guides, array types and mistakes


def test_the_fused_elbo_takes_weights_within_pyros_svi():
    net = small_network()
    guide = moved_guide(net)
    x, y = net.prepare(X, Y)
    losses = []
    for elbo in (FusedELBO(), Trace_ELBO()):
        svi = SVI(copy.deepcopy(net), copy.deepcopy(guide), pyro.optim.Adam({"lr": 0.01}), elbo)
        pyro.set_rng_seed(7)
        losses.append(svi.step(x[:9], y[:9], 23, torch.as_tensor(COUNTS[:9]).double()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_a_guide_by_the_user_is_called_without_the_weights():
    class UserGuide(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.inner = MeanFieldGuide(net)

        def forward(self, x, y, n_data=None):
            return self.inner(x)

    net = small_network()
    by_user = quick_fit(net, guide=UserGuide(net), sample_weight=COUNTS)
    assert by_user.settings["engine"] == "svi"
    named = quick_fit(net, sample_weight=COUNTS, engine="svi")
    np.testing.assert_array_equal(by_user.history.nll, named.history.nll)


def test_weights_may_be_any_kind_of_array_and_number():
    expected = quick_fit(sample_weight=COUNTS, engine="fused")
    for weight in (list(COUNTS), torch.as_tensor(COUNTS).float(), COUNTS.astype(np.int8)):
        assert_same_fit(quick_fit(sample_weight=weight, engine="fused"), expected, rtol=0)


@pytest.mark.arviz
def test_a_weighted_fit_is_marked_and_not_compared_with_the_unweighted_model():
    assert "is_weighted" not in quick_fit().settings
    posterior = quick_fit(sample_weight=COUNTS)
    checks = posterior.diagnose(X, Y, n_draws=100, seed=0)
    for name in ("ELBO", "k-hat of the weights", "PSIS-LOO"):
        assert checks[name].verdict == "not measured"
        assert "`sample_weight`" in checks[name].meaning
    stats = posterior.to_arviz(X, Y, n_draws=100)["sample_stats"]
    assert set(stats.data_vars) == {"logq"}
    with pytest.raises(ValueError, match="`posterior` was fitted with a `sample_weight`, while"):
        compare_with_nuts(small_network(), X, Y, posterior=posterior)


MISTAKES = {
    "too few": (np.ones(22), r"`sample_weight` must have shape \(23,\), one .* got \(22,\)"),
    "a column": (np.ones((23, 1)), r"`sample_weight` must have shape \(23,\), .* got \(23, 1\)"),
    "negative": (np.arange(23) - 1.0, r"`sample_weight` must be at least 0, got -1.0 for row 0"),
    "nothing": (np.zeros(23), "`sample_weight` must be positive for some row, got 0 for all"),
    "NaN": (np.where(np.arange(23) == 3, np.nan, 1), "`sample_weight` has 1 value.* at row 3"),
    "infinite": (np.where(np.arange(23) == 3, np.inf, 1), "`sample_weight` has 1 value"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_invalid_weights_are_refused(mistake):
    weight, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        quick_fit(sample_weight=weight)


def test_weights_with_a_data_loader_are_refused():
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)))
    with pytest.raises(ValueError, match="`sample_weight` needs x and y as arrays"):
        fit(small_network(), loader, n_data=23, sample_weight=COUNTS)


@pytest.mark.parametrize("loss", ["the model", "FusedELBO"])
def test_row_weights_from_the_user_are_checked(loss):
    net = small_network()
    x, y = net.prepare(X, Y)

    def run(weight):
        if loss == "the model":
            return net(x, y, row_weight=weight)
        return FusedELBO().loss(net, MeanFieldGuide(net), x, y, row_weight=weight)

    run(torch.ones(23))
    with pytest.raises(ValueError, match=r"`row_weight` must have shape \(23,\), .* got \(1,\)"):
        run(torch.ones(1))
    with pytest.raises(ValueError, match=r"`row_weight` must be at least 0, got -1\.0"):
        run(-torch.ones(23))
