"""The hand-derived reference against finite differences, autograd, SciPy and closed forms."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, Normal

from pyrobbb.reference import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    GaussianPrior,
    MixturePrior,
    Trained,
    backpropagate,
    feedforward,
    initialise,
    log_softmax,
    log_softplus,
    nelbo_and_gradients,
    predict,
    sample,
    sigmoid,
    softplus,
    train,
)

SIZES = [3, 4, 2]
ACTIVATIONS = ["relu", "tanh", "sigmoid"]
PRIORS = {
    "gaussian": GaussianPrior(0.7, loc=0.2),
    "mixture": MixturePrior(0.25, scale1=1.5, scale2=0.1),
    "one an array": [
        (GaussianPrior(0.5), MixturePrior(0.75, scale1=0.9, scale2=0.2)),
        (MixturePrior(0.5, scale1=1.0, scale2=0.3), GaussianPrior(2.0, loc=-0.1)),
    ],
}
LIKELIHOODS = {
    "gaussian": GaussianLikelihood(0.3),
    "bernoulli": BernoulliLikelihood(),
    "categorical": CategoricalLikelihood(),
}


# An independent loss: torch.distributions and autograd, log q kept as it is written in the paper.


def as_torch(weights, requires_grad=False):
    return [tuple(torch.tensor(a, requires_grad=requires_grad) for a in pair) for pair in weights]


def torch_prior(prior):
    if isinstance(prior, GaussianPrior):
        return Normal(*torch.tensor([prior.loc, prior.scale], dtype=torch.float64))
    pi, scales = prior.pi, [prior.scale1, prior.scale2]
    return MixtureSameFamily(
        Categorical(probs=torch.tensor([pi, 1 - pi], dtype=torch.float64)),
        Normal(torch.zeros(2, dtype=torch.float64), torch.tensor(scales, dtype=torch.float64)),
    )


def torch_log_likelihood(likelihood, output, y):
    if isinstance(likelihood, GaussianLikelihood):
        return Normal(output, likelihood.scale).log_prob(y).sum()
    if isinstance(likelihood, BernoulliLikelihood):
        return Bernoulli(logits=output).log_prob(y).sum()
    return Categorical(logits=output).log_prob(y).sum()


def torch_network(w, x, activation):
    for weight, bias in w[:-1]:
        x = getattr(torch, activation)(torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, *w[-1])


def torch_nelbo(
    mu, rho, eps, x, y, *, prior, likelihood, activation, n_data=None, kl_weight=1.0, entropy=False
):
    """Return the loss; with `entropy`, log q is replaced by minus the closed-form entropy of q."""
    priors = prior if isinstance(prior, list) else [(prior, prior)] * len(mu)
    total = torch.zeros((), dtype=torch.float64)
    for draw in eps:
        w = []
        for layer in zip(mu, rho, as_torch(draw), priors, strict=True):
            arrays = []
            for m, r, e, p in zip(*layer, strict=True):
                q = Normal(m, torch.log1p(torch.exp(r)))
                value = q.mean + q.stddev * e
                log_q = -q.entropy() if entropy else q.log_prob(value)
                total = total + kl_weight * (log_q - torch_prior(p).log_prob(value)).sum()
                arrays.append(value)
            w.append(tuple(arrays))
        output = torch_network(w, torch.tensor(x), activation)
        rows = 1.0 if n_data is None else n_data / len(x)
        total = total - rows * torch_log_likelihood(likelihood, output, torch.tensor(y))
    return total / len(eps)


def torch_gradients(mu, rho, *args, **kwargs):
    mu, rho = as_torch(mu, requires_grad=True), as_torch(rho, requires_grad=True)
    nelbo = torch_nelbo(mu, rho, *args, **kwargs)
    nelbo.backward()
    return nelbo.item(), [a.grad.numpy() for a in arrays_of(mu, rho)]


def arrays_of(*weights):
    return [array for w in weights for pair in w for array in pair]


def full(value, sizes):
    return [
        (np.full((n_out, n_in), value), np.full(n_out, value))
        for n_in, n_out in itertools.pairwise(sizes)
    ]


def normal_noise(rng, sizes):
    return [
        (rng.standard_normal((n_out, n_in)), rng.standard_normal(n_out))
        for n_in, n_out in itertools.pairwise(sizes)
    ]


def problem(likelihood, *, sizes=SIZES, n_draws=1, n_rows=5, seed=0):
    """Draw mu, rho, eps, x and y of a small problem."""
    rng = np.random.default_rng(seed)
    mu = normal_noise(rng, sizes)
    rho = [(weight - 1.0, bias - 1.0) for weight, bias in normal_noise(rng, sizes)]
    eps = [normal_noise(rng, sizes) for _ in range(n_draws)]
    x = rng.standard_normal((n_rows, sizes[0]))
    y = {
        GaussianLikelihood: rng.standard_normal((n_rows, sizes[-1])),
        BernoulliLikelihood: rng.integers(2, size=(n_rows, sizes[-1])).astype(float),
        CategoricalLikelihood: rng.integers(sizes[-1], size=n_rows),
    }[type(likelihood)]
    return mu, rho, eps, x, y


def assert_all_close(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, strict=True, **tolerance)


def assert_agrees_with_autograd(*data, **options):
    ours = nelbo_and_gradients(*data, **options)
    nelbo, gradients = torch_gradients(*data, **options)
    assert ours.nelbo == pytest.approx(nelbo, rel=1e-10)
    assert_all_close(arrays_of(ours.d_mu, ours.d_rho), gradients, rtol=1e-8, atol=1e-11)


every_model = pytest.mark.parametrize(
    ("activation", "prior", "likelihood", "n_draws"),
    [
        pytest.param(a, PRIORS[p], LIKELIHOODS[q], n, id=f"{a}, {p} prior, {q}, {n} draws")
        for a, p, q, n in itertools.product(ACTIVATIONS, PRIORS, LIKELIHOODS, [1, 2])
    ],
)


@every_model
def test_gradients_agree_with_finite_differences(activation, prior, likelihood, n_draws):
    mu, rho, eps, x, y = problem(likelihood, n_draws=n_draws)
    # Both weights differ from 1: a factor put in the wrong place shows.
    options = {
        "prior": prior,
        "likelihood": likelihood,
        "activation": activation,
        "n_data": 40,
        "kl_weight": 0.3,
    }

    def nelbo():
        return nelbo_and_gradients(mu, rho, eps, x, y, **options).nelbo

    gradients = nelbo_and_gradients(mu, rho, eps, x, y, **options)
    step = 1e-5
    for parameter, gradient in zip(
        arrays_of(mu, rho), arrays_of(gradients.d_mu, gradients.d_rho), strict=True
    ):
        differences = np.empty_like(parameter)
        for i in np.ndindex(parameter.shape):
            start = parameter[i]
            parameter[i] = start + step
            above = nelbo()
            parameter[i] = start - step
            differences[i] = (above - nelbo()) / (2 * step)
            parameter[i] = start
        # Rounding leaves about 1e-16 * nelbo / step in a difference.
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=2e-6)


@every_model
def test_nelbo_and_gradients_agree_with_autograd(activation, prior, likelihood, n_draws):
    data = problem(likelihood, n_draws=n_draws)
    assert_agrees_with_autograd(
        *data, prior=prior, likelihood=likelihood, activation=activation, n_data=40, kl_weight=0.3
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize(
    ("n_data", "kl_weight"), [(None, 1.0), (40, 1.0), (None, 0.3), (None, 2.5), (40, 0.0)]
)
def test_weights_of_rows_and_kl_agree_with_autograd(likelihood, n_data, kl_weight):
    assert_agrees_with_autograd(
        *problem(likelihood, n_draws=3),
        prior=PRIORS["mixture"],
        likelihood=likelihood,
        activation="tanh",
        n_data=n_data,
        kl_weight=kl_weight,
    )


def test_the_papers_mixture_agrees_with_autograd():
    likelihood = GaussianLikelihood(0.3)
    mu, rho, eps, x, y = problem(likelihood, n_draws=2)
    mu[0] = (mu[0][0] * 0.01, mu[0][1] * 0.01)  # both components take part in the first layer
    rho[0] = (rho[0][0] - 5, rho[0][1] - 5)
    assert_agrees_with_autograd(
        mu, rho, eps, x, y, prior=MixturePrior(), likelihood=likelihood, activation="tanh"
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    n_rows=st.integers(1, 7),
    activation=st.sampled_from(ACTIVATIONS),
    seed=st.integers(0, 2**32 - 1),
)
def test_networks_of_any_size_agree_with_autograd(sizes, n_rows, activation, seed):
    likelihood = BernoulliLikelihood()
    data = problem(likelihood, sizes=sizes, n_rows=n_rows, seed=seed)
    assert_agrees_with_autograd(
        *data, prior=GaussianPrior(0.5), likelihood=likelihood, activation=activation
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backpropagation_of_any_scalar_agrees_with_autograd(activation):
    rng = np.random.default_rng(1)
    sizes = [2, 5, 3, 4]
    w, x, d_output = normal_noise(rng, sizes), rng.normal(size=(6, 2)), rng.normal(size=(6, 4))
    output, cache = feedforward(w, x, activation)
    w_torch = as_torch(w, requires_grad=True)
    expected = torch_network(w_torch, torch.tensor(x), activation)
    expected.backward(torch.tensor(d_output))
    np.testing.assert_allclose(output, expected.detach().numpy(), rtol=1e-12)
    assert_all_close(
        arrays_of(backpropagate(w, cache, d_output, activation)),
        [a.grad.numpy() for a in arrays_of(w_torch)],
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_sampled_log_q_and_entropy_have_the_same_gradient_in_every_draw(prior, likelihood):
    mu, rho, eps, x, y = problem(likelihood, n_draws=4)
    options = {"prior": prior, "likelihood": likelihood, "activation": "tanh"}
    for draw in eps:
        ours = nelbo_and_gradients(mu, rho, [draw], x, y, **options)
        sampled, sampled_gradients = torch_gradients(mu, rho, [draw], x, y, **options)
        closed, closed_gradients = torch_gradients(mu, rho, [draw], x, y, entropy=True, **options)
        assert abs(sampled - closed) > 0.1  # the losses differ, their gradients do not
        assert_all_close(sampled_gradients, closed_gradients, rtol=1e-8, atol=1e-10)
        assert_all_close(arrays_of(ours.d_mu, ours.d_rho), closed_gradients, rtol=1e-8, atol=1e-10)


def test_gradients_are_averaged_over_draws():
    likelihood = GaussianLikelihood(0.3)
    mu, rho, eps, x, y = problem(likelihood, n_draws=3)
    options = {"prior": MixturePrior(), "likelihood": likelihood}
    together = nelbo_and_gradients(mu, rho, eps, x, y, **options)
    alone = [nelbo_and_gradients(mu, rho, [draw], x, y, **options) for draw in eps]
    for name in ("nelbo", "nll", "kl"):
        mean = np.mean([getattr(one, name) for one in alone])
        assert getattr(together, name) == pytest.approx(mean, rel=1e-12)
    for i, gradient in enumerate(arrays_of(together.d_mu, together.d_rho)):
        mean = np.mean([arrays_of(one.d_mu, one.d_rho)[i] for one in alone], axis=0)
        np.testing.assert_allclose(gradient, mean, rtol=1e-10, atol=1e-12)


def test_sampled_kl_agrees_with_its_closed_form():
    likelihood = GaussianLikelihood(1.0)
    mu, rho, eps, x, y = problem(likelihood, n_draws=3000)
    prior_scale = 0.8
    options = {"prior": GaussianPrior(prior_scale), "likelihood": likelihood}
    kl = np.array([nelbo_and_gradients(mu, rho, [draw], x, y, **options).kl for draw in eps])
    closed = sum(
        (np.log(prior_scale / s) + (s**2 + m**2) / (2 * prior_scale**2) - 0.5).sum()
        for m, s in zip(arrays_of(mu), map(np.log1p, map(np.exp, arrays_of(rho))), strict=True)
    )
    assert abs(kl.mean() - closed) < 4 * kl.std() / np.sqrt(len(kl))


def test_gradients_vanish_on_average_at_the_conjugate_posterior():
    # Bayesian linear regression with an orthogonal design: the exact posterior factorises.
    rng = np.random.default_rng(3)
    n_data, noise, prior_scale = 8, 0.5, 0.9
    x = np.linalg.qr(np.column_stack([np.ones(n_data), rng.normal(size=(n_data, 2))]))[0][:, 1:]
    x = x * 2.0  # columns of squared length 4, orthogonal to each other and to the bias
    y = x @ np.array([[1.0], [-0.5]]) + 0.3 + noise * rng.normal(size=(n_data, 1))
    precision = np.array([4.0, 4.0]) / noise**2 + 1 / prior_scale**2
    bias_precision = n_data / noise**2 + 1 / prior_scale**2
    mu = [((x.T @ y / noise**2).T / precision, y.sum(axis=0) / noise**2 / bias_precision)]
    scale = [(precision[None, :] ** -0.5, np.array([bias_precision**-0.5]))]
    rho = [tuple(np.log(np.expm1(s)) for s in scale[0])]

    draws = []
    for _ in range(1500):
        rows = rng.choice(n_data, 3, replace=False)  # minibatches share this optimum
        gradients = nelbo_and_gradients(
            mu,
            rho,
            [normal_noise(rng, [2, 1])],
            x[rows],
            y[rows],
            prior=GaussianPrior(prior_scale),
            likelihood=GaussianLikelihood(noise),
            n_data=n_data,
        )
        draws.append(
            np.concatenate([a.ravel() for a in arrays_of(gradients.d_mu, gradients.d_rho)])
        )
    standard_error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0)) < 4 * standard_error).all()


def test_minibatch_nelbos_of_an_epoch_average_to_the_full_one_at_fixed_noise():
    likelihood = BernoulliLikelihood()
    mu, rho, eps, x, y = problem(likelihood, n_rows=10)
    options = {"prior": GaussianPrior(), "likelihood": likelihood, "n_data": 10}
    batches = [slice(0, 4), slice(4, 8), slice(8, 10)]  # the last is ragged
    parts = [nelbo_and_gradients(mu, rho, eps, x[b], y[b], **options) for b in batches]
    whole = nelbo_and_gradients(mu, rho, eps, x, y, prior=GaussianPrior(), likelihood=likelihood)
    shares = [0.4, 0.4, 0.2]
    assert np.dot(shares, [p.nelbo for p in parts]) == pytest.approx(whole.nelbo, rel=1e-12)
    for i, gradient in enumerate(arrays_of(whole.d_mu, whole.d_rho)):
        mean = sum(s * arrays_of(p.d_mu, p.d_rho)[i] for s, p in zip(shares, parts, strict=True))
        np.testing.assert_allclose(mean, gradient, rtol=1e-10, atol=1e-12)


# Densities and stable helpers against SciPy


def test_priors_agree_with_scipy():
    w = np.linspace(-3, 3, 61).reshape(61, 1)
    gaussian = scipy.stats.norm(0.2, 0.7).logpdf(w).sum()
    assert GaussianPrior(0.7, loc=0.2).log_prob(w) == pytest.approx(gaussian, rel=1e-12)
    components = [scipy.stats.norm(0, 1.5).logpdf(w), scipy.stats.norm(0, 0.1).logpdf(w)]
    weights = np.array([0.25, 0.75]).reshape(2, 1, 1)
    mixture = scipy.special.logsumexp(components, axis=0, b=weights).sum()
    assert MixturePrior(0.25, 1.5, 0.1).log_prob(w) == pytest.approx(mixture, rel=1e-12)


def test_likelihoods_agree_with_scipy():
    rng = np.random.default_rng(0)
    output, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    labels = rng.integers(3, size=6)
    gaussian = -scipy.stats.norm(output, 0.3).logpdf(y).sum()
    assert GaussianLikelihood(0.3).nll(output, y) == pytest.approx(gaussian, rel=1e-12)
    y = (y > 0).astype(float)
    bernoulli = -scipy.stats.bernoulli(scipy.special.expit(output)).logpmf(y).sum()
    assert BernoulliLikelihood().nll(output, y) == pytest.approx(bernoulli, rel=1e-12)
    categorical = -scipy.special.log_softmax(output, axis=1)[range(6), labels].sum()
    assert CategoricalLikelihood().nll(output, labels) == pytest.approx(categorical, rel=1e-12)


def test_helpers_agree_with_scipy_and_do_not_overflow():
    z = np.array([-1000.0, -800, -100, -41, -40, -39, -1, 0, 1, 40, 100, 1000])
    np.testing.assert_allclose(sigmoid(z), scipy.special.expit(z), rtol=1e-12)
    np.testing.assert_allclose(softplus(z), np.logaddexp(0, z), rtol=1e-12)
    moderate = z[np.abs(z) <= 100]
    np.testing.assert_allclose(
        log_softplus(moderate), np.log(np.log1p(np.exp(moderate))), rtol=1e-14
    )
    assert log_softplus(np.array([-1000.0])) == -1000  # where softplus itself is 0
    assert log_softplus(np.array([1000.0])) == np.log(1000)
    rows = np.array([[1000.0, 0, -1000], [1e300, 1e300, 0]])
    np.testing.assert_allclose(log_softmax(rows), scipy.special.log_softmax(rows, axis=1))


# Extremes


@pytest.mark.parametrize("rho_value", [-1000.0, -100.0, 100.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize("prior", [GaussianPrior(0.1), MixturePrior()], ids=["gaussian", "mixture"])
def test_extreme_rho_gives_finite_loss_and_gradients(prior, likelihood, activation, rho_value):
    mu, _, eps, x, y = problem(likelihood, n_draws=2)
    rho = full(rho_value, SIZES)
    options = {"prior": prior, "likelihood": likelihood, "activation": activation}
    result = nelbo_and_gradients(mu, rho, eps, x, y, **options)
    assert np.isfinite([result.nelbo, result.nll, result.kl]).all()
    for gradient in arrays_of(result.d_mu, result.d_rho):
        assert np.isfinite(gradient).all()
    if rho_value < 0:  # log s = rho, and nothing else depends on rho
        assert_all_close(arrays_of(result.d_rho), arrays_of(full(-1.0, SIZES)), rtol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize("prior", [GaussianPrior(2.0), MixturePrior()], ids=["gaussian", "mixture"])
def test_weights_of_fifty_scales_give_finite_loss_and_gradients(prior, likelihood):
    _, rho, eps, x, y = problem(likelihood)
    for value in (50 * 2.0, 50 * 1.0, 50 * 0.0025, -100.0):
        result = nelbo_and_gradients(
            full(value, SIZES), rho, eps, x, y, prior=prior, likelihood=likelihood
        )
        assert np.isfinite(result.nelbo)
        for gradient in arrays_of(result.d_mu, result.d_rho):
            assert np.isfinite(gradient).all()


def test_the_mixture_behaves_like_its_wide_component_far_out_and_like_the_narrow_one_at_zero():
    prior = MixturePrior(0.5, scale1=2.0, scale2=0.01)
    far = np.array([100.0, -1e6])  # both densities underflow
    wide = np.log(0.5) + scipy.stats.norm(0, 2.0).logpdf(far)
    assert prior.log_prob(far) == pytest.approx(wide.sum(), rel=1e-12)
    np.testing.assert_allclose(prior.score(far), -far / 2.0**2, rtol=1e-12)
    near = np.array([1e-5])
    np.testing.assert_allclose(prior.score(near), -near / 0.01**2, rtol=0.01)
    assert prior.score(np.zeros(1)) == 0


# Common mistakes in derivations by hand


def test_prior_and_likelihood_are_subtracted_from_log_q():
    likelihood, prior = GaussianLikelihood(0.3), GaussianPrior(0.7)
    mu, rho, eps, x, y = problem(likelihood)
    w = sample(mu, rho, eps[0])
    arrays = zip(arrays_of(w), arrays_of(mu), map(softplus, arrays_of(rho)), strict=True)
    log_q = sum(scipy.stats.norm(m, s).logpdf(value).sum() for value, m, s in arrays)
    log_prior = sum(scipy.stats.norm(0, 0.7).logpdf(value).sum() for value in arrays_of(w))
    log_likelihood = scipy.stats.norm(feedforward(w, x)[0], 0.3).logpdf(y).sum()
    result = nelbo_and_gradients(mu, rho, eps, x, y, prior=prior, likelihood=likelihood)
    assert result.kl == pytest.approx(log_q - log_prior, rel=1e-10)
    assert result.nll == pytest.approx(-log_likelihood, rel=1e-10)
    assert result.nelbo == pytest.approx(log_q - log_prior - log_likelihood, rel=1e-10)


def test_log_densities_fall_with_distance():
    assert GaussianPrior().log_prob(np.array([2.0])) < GaussianPrior().log_prob(np.array([1.0]))
    assert MixturePrior().log_prob(np.array([2.0])) < MixturePrior().log_prob(np.array([1.0]))
    y, near, far = np.zeros((1, 1)), np.full((1, 1), 1.0), np.full((1, 1), 2.0)
    assert GaussianLikelihood(1.0).nll(near, y) < GaussianLikelihood(1.0).nll(far, y)


def test_cross_entropy_falls_as_the_logit_of_the_observed_class_rises():
    low, high = np.array([[0.0, 1.0, -1.0]]), np.array([[0.0, 1.0, 2.0]])
    y = np.array([2])
    assert CategoricalLikelihood().nll(high, y) < CategoricalLikelihood().nll(low, y)
    assert CategoricalLikelihood().d_nll(low, y)[0, 2] < 0
    assert BernoulliLikelihood().nll(high, np.ones((1, 3))) < BernoulliLikelihood().nll(
        low, np.ones((1, 3))
    )


def test_softmax_normalises_over_the_classes_and_not_over_the_observations():
    rng = np.random.default_rng(0)
    output, y = rng.normal(size=(7, 3)), rng.integers(3, size=7)
    np.testing.assert_allclose(np.exp(log_softmax(output)).sum(axis=1), 1, rtol=1e-12)
    # A constant added to all logits of one observation changes nothing; observations do not mix.
    shifted = output + rng.normal(size=(7, 1))
    likelihood = CategoricalLikelihood()
    assert likelihood.nll(shifted, y) == pytest.approx(likelihood.nll(output, y), rel=1e-12)
    one_by_one = sum(likelihood.nll(output[i : i + 1], y[i : i + 1]) for i in range(7))
    assert likelihood.nll(output, y) == pytest.approx(one_by_one, rel=1e-12)
    np.testing.assert_allclose(likelihood.d_nll(output, y).sum(axis=1), 0, atol=1e-12)


def test_zero_times_minus_infinity_does_not_occur_at_certain_logits():
    certain, y = np.array([[1000.0, -1000.0], [-1000.0, 1000.0]]), np.array([0, 0])
    categorical = CategoricalLikelihood()
    assert categorical.nll(certain[:1], y[:1]) == 0
    assert categorical.nll(certain, y) == 2000
    np.testing.assert_allclose(categorical.d_nll(certain, y), [[0, 0], [-1, 1]])
    bernoulli = BernoulliLikelihood()
    assert bernoulli.nll(certain[:1], np.array([[1.0, 0.0]])) == 0
    assert bernoulli.nll(certain[:1], np.array([[0.0, 1.0]])) == 2000
    np.testing.assert_allclose(bernoulli.d_nll(certain[:1], np.array([[0.0, 1.0]])), [[1, -1]])


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(1.0), BernoulliLikelihood()])
@pytest.mark.parametrize("method", ["nll", "d_nll"])
def test_a_flat_target_for_a_column_of_outputs_raises(likelihood, method):
    with pytest.raises(ValueError, match=r"\(100,\).*\(100, 1\).*y\.reshape\(-1, 1\)"):
        getattr(likelihood, method)(np.zeros((100, 1)), np.zeros(100))


def test_training_on_a_flat_target_raises():
    with pytest.raises(ValueError, match=r"\(10,\).*\(10, 1\).*y\.reshape\(-1, 1\)"):
        train(
            np.zeros((10, 2)),
            np.zeros(10),
            hidden=[3],
            prior=GaussianPrior(),
            likelihood=GaussianLikelihood(1.0),
            n_steps=1,
        )


def test_one_categorical_output_raises_since_its_log_softmax_is_always_zero():
    assert (log_softmax(np.array([[3.0], [-8.0]])) == 0).all()
    with pytest.raises(ValueError, match="at least two outputs, got 1"):
        CategoricalLikelihood().nll(np.zeros((4, 1)), np.zeros(4, dtype=int))


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (
            np.array([1, 2, 3, 1]),
            r"from 0 to 2 .* from 1 to 3",
        ),  # labels that count from 1, as in R
        (np.array([0, -1, 2, 1]), r"from -1 to 2"),  # NumPy would take the last class
        (np.array([0.0, 1.0, 2.0, 1.0]), "got float64"),
        (np.array([[0], [1], [2], [1]]), r"shape \(4,\).*in shape \(4, 1\)"),
    ],
)
def test_labels_that_are_not_classes_raise(y, match):
    with pytest.raises(ValueError, match=match):
        CategoricalLikelihood().d_nll(np.zeros((4, 3)), y)


def test_binary_targets_that_count_from_one_raise():
    with pytest.raises(ValueError, match=r"0 and 1, got values from 1\.0 to 2\.0"):
        BernoulliLikelihood().nll(np.zeros((2, 1)), np.array([[1.0], [2.0]]))


def test_a_rho_of_the_wrong_shape_raises():
    mu, rho, eps, *_ = problem(GaussianLikelihood(1.0))
    rho[1] = (rho[1][0][:, :1], rho[1][1])
    with pytest.raises(ValueError, match=r"W of layer 1 they have \(2, 4\), \(2, 1\) and \(2, 4\)"):
        sample(mu, rho, eps[0])


def test_noise_has_unit_scale_and_is_not_learned():
    mu, rho = initialise([2, 1], np.random.default_rng(0))
    rho = [(rho[0][0] + 2.0, rho[0][1] + 1.0)]
    x = np.array([[1.0, -2.0]])
    output = predict(Trained(mu, rho, np.empty(0), "relu"), x, n_draws=20_000, seed=0)[:, 0, 0]
    scale = np.sqrt((softplus(rho[0][0]) ** 2 @ x.T**2).sum() + softplus(rho[0][1]) ** 2).item()
    mean = (x @ mu[0][0].T + mu[0][1]).item()
    assert abs(output.mean() - mean) < 4 * scale / np.sqrt(20_000)
    assert abs(output.std() / scale - 1) < 4 / np.sqrt(2 * 20_000)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_are_neither_clamped_nor_squashed(activation):
    w, x = normal_noise(np.random.default_rng(0), SIZES), np.ones((5, 3))
    output, _ = feedforward(w, x, activation)
    large, _ = feedforward([w[0], (1e6 * w[1][0], 1e6 * w[1][1])], x, activation)
    np.testing.assert_allclose(large, 1e6 * output, rtol=1e-12)


def test_arguments_are_not_changed():
    likelihood = GaussianLikelihood(0.3)
    data = problem(likelihood)
    copies = problem(likelihood)
    nelbo_and_gradients(*data, prior=GaussianPrior(), likelihood=likelihood)
    assert_all_close(arrays_of(*data[:2], *data[2]), arrays_of(*copies[:2], *copies[2]), rtol=0)
    assert_all_close(data[3:], copies[3:], rtol=0)


# Other arguments that do not fit


def test_an_unknown_activation_raises():
    with pytest.raises(ValueError, match=r"relu.*got 'gelu'"):
        feedforward(normal_noise(np.random.default_rng(0), SIZES), np.ones((1, 3)), "gelu")


def test_no_draws_raises():
    mu, rho, _, x, y = problem(GaussianLikelihood(1.0))
    with pytest.raises(ValueError, match="at least one draw"):
        nelbo_and_gradients(
            mu, rho, [], x, y, prior=GaussianPrior(), likelihood=GaussianLikelihood(1.0)
        )


def test_a_wrong_number_of_priors_raises():
    prior = [(GaussianPrior(), GaussianPrior())]
    with pytest.raises(ValueError, match="1 pairs for 2 layers"):
        nelbo_and_gradients(
            *problem(GaussianLikelihood(1.0)), prior=prior, likelihood=GaussianLikelihood(1.0)
        )


@pytest.mark.parametrize("shape", [(4, 1), (5,)])
def test_x_that_has_no_row_for_each_row_of_y_raises(shape):
    with pytest.raises(ValueError, match=re.escape(f"got shape {shape} for y of shape (5, 1)")):
        train(
            np.zeros(shape),
            np.zeros((5, 1)),
            hidden=[],
            prior=GaussianPrior(),
            likelihood=GaussianLikelihood(1.0),
            n_steps=1,
        )


# Training


def noisy_sine(n_rows=100):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (n_rows, 1))
    return x, np.sin(2 * x), np.sin(2 * x) + 0.1 * rng.normal(size=(n_rows, 1))


def test_initial_scales_are_a_fraction_of_the_spread_of_the_means():
    mu, rho = initialise([400, 300, 1], np.random.default_rng(0), scale_fraction=0.05)
    assert [w.shape for w in arrays_of(mu)] == [(300, 400), (300,), (1, 300), (1,)]
    assert mu[0][0].std() == pytest.approx(1 / 20, rel=0.02)
    np.testing.assert_allclose(softplus(rho[0][0]), 0.05 / 20, rtol=1e-10)
    np.testing.assert_allclose(softplus(rho[1][1]), 0.05 / np.sqrt(300), rtol=1e-10)


def test_training_takes_the_steps_of_torchs_adam():
    x, _, y = noisy_sine(20)
    options = {"prior": MixturePrior(), "likelihood": GaussianLikelihood(0.1), "activation": "tanh"}
    trained = train(x, y, hidden=[4], n_steps=30, n_draws=2, learning_rate=0.02, seed=5, **options)
    rng = np.random.default_rng(5)
    mu, rho = (as_torch(start, requires_grad=True) for start in initialise([1, 4, 1], rng))
    optimiser = torch.optim.Adam(arrays_of(mu, rho), lr=0.02)
    for nelbo in trained.nelbo:
        eps = [normal_noise(rng, [1, 4, 1]) for _ in range(2)]
        optimiser.zero_grad()
        expected = torch_nelbo(mu, rho, eps, x, y, **options)
        assert nelbo == pytest.approx(expected.item(), rel=1e-8)
        expected.backward()
        optimiser.step()
    expected = [a.detach().numpy() for a in arrays_of(mu, rho)]
    assert_all_close(arrays_of(trained.mu, trained.rho), expected, rtol=1e-7, atol=1e-9)


def test_minibatches_have_the_nelbo_of_all_the_data_on_average():
    x, _, y = noisy_sine(20)
    order = np.argsort(y[:, 0])  # so that consecutive rows do not represent the data
    options = {"hidden": [4], "prior": GaussianPrior(), "likelihood": GaussianLikelihood(0.5)}
    options |= {"n_steps": 1000, "learning_rate": 0.0}
    whole = train(x[order], y[order], **options).nelbo
    batches = train(x[order], y[order], batch_size=5, **options).nelbo
    standard_error = np.sqrt((whole.var() + batches.var()) / 1000)
    assert abs(whole.mean() - batches.mean()) < 4 * standard_error


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_training_fits_a_noisy_sine(activation):
    x, mean, y = noisy_sine()
    trained = train(
        x,
        y,
        hidden=[32],
        prior=GaussianPrior(1.0),
        likelihood=GaussianLikelihood(0.1),
        activation=activation,
        n_steps=2000,
        batch_size=50,
    )
    fitted = predict(trained, x, n_draws=100, seed=0).mean(axis=0)
    assert 1 - ((fitted - mean) ** 2).sum() / ((mean - mean.mean()) ** 2).sum() > 0.9
    assert trained.nelbo.shape == (2000,)
    assert trained.nelbo[-200:].mean() < trained.nelbo[:200].mean() / 2


@pytest.mark.parametrize("likelihood", [BernoulliLikelihood(), CategoricalLikelihood()])
def test_training_on_coin_flips_finds_their_probability(likelihood):
    rng = np.random.default_rng(0)
    n_rows, probability = 500, 0.6
    x, y = rng.normal(size=(n_rows, 3)), rng.binomial(1, probability, size=n_rows)
    is_categorical = isinstance(likelihood, CategoricalLikelihood)
    trained = train(
        x,
        y if is_categorical else y[:, None].astype(float),
        hidden=[8],
        prior=GaussianPrior(0.5),
        likelihood=likelihood,
        n_steps=800,
        n_draws=2,
    )
    output = predict(trained, x, n_draws=100, seed=0)
    assert output.shape == (100, n_rows, 2 if is_categorical else 1)
    predicted = np.exp(log_softmax(output))[..., 1] if is_categorical else sigmoid(output)[..., 0]
    standard_error = np.sqrt(probability * (1 - probability) / n_rows)
    assert abs(predicted.mean() - probability) < 3 * standard_error
    assert trained.nelbo[-50:].mean() < trained.nelbo[:50].mean()


def test_the_seed_determines_the_training():
    x, _, y = noisy_sine(20)
    options = {
        "hidden": [4],
        "prior": MixturePrior(),
        "likelihood": GaussianLikelihood(0.1),
        "n_steps": 5,
        "batch_size": 8,
    }
    first, again, other = (train(x, y, seed=seed, **options) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.nelbo, again.nelbo)
    assert_all_close(arrays_of(first.mu, first.rho), arrays_of(again.mu, again.rho), rtol=0)
    assert (first.nelbo != other.nelbo).all()
    np.testing.assert_array_equal(predict(first, x, 3, seed=0), predict(again, x, 3, seed=0))
    assert (predict(first, x, 3, seed=0) != predict(first, x, 3, seed=1)).any()


def test_a_nelbo_that_is_not_finite_stops_training_and_names_the_step():
    x, _, y = noisy_sine(20)
    options = {
        "hidden": [4],
        "prior": GaussianPrior(),
        "likelihood": GaussianLikelihood(0.1),
        "n_steps": 5,
    }
    with pytest.raises(FloatingPointError, match=r"at step 2 .*learning_rate"):
        train(x, y, learning_rate=1e200, **options)
    x[3] = np.nan
    with pytest.raises(FloatingPointError, match=r"nelbo is nan at step 1 \(nll nan"):
        train(x, y, **options)


def test_20_000_steps_with_two_draws_stay_finite_and_end_at_the_probability():
    """The Bernoulli(0.6) classification that turned NaN after some twenty steps."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 3)), rng.binomial(1, 0.6, (100, 1)).astype(float)
    trained = train(
        x,
        y,
        hidden=[8],
        prior=GaussianPrior(1.0),
        likelihood=BernoulliLikelihood(),
        n_steps=20_000,
        n_draws=2,
        learning_rate=1e-3,
    )
    assert len(trained.nelbo) == 20_000
    assert np.isfinite(trained.nelbo).all()
    probability = sigmoid(predict(trained, x, n_draws=200, seed=0)).mean()
    assert abs(probability - y.mean()) < 0.05
