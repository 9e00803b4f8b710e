"""Likelihoods against SciPy's densities and moments, and the messages about invalid y."""

import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import scipy.special
import scipy.stats
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, mlp
from pyrobbb.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    LogNormal,
    NegativeBinomial,
    Poisson,
    StudentT,
)

REAL = np.array([[0.3], [-1.2], [2.5]])
COUNTS = np.array([[0.0], [1.0], [7.0]])


def column(output, i):
    return output.numpy()[:, i : i + 1]


def negative_binomial(output, r):
    m = np.exp(column(output, 0))
    return scipy.stats.nbinom(r, r / (r + m))


# Likelihood, units of the network, y, and SciPy's frozen distribution given the output.
EXACT = {
    "Gaussian": (Gaussian(0.3), 1, REAL, lambda o: scipy.stats.norm(column(o, 0), 0.3)),
    "HeteroscedasticGaussian": (
        HeteroscedasticGaussian(),
        2,
        REAL,
        # 1e-4 keeps the scale away from 0.
        lambda o: scipy.stats.norm(column(o, 0), np.log1p(np.exp(column(o, 1))) + 1e-4),
    ),
    "StudentT": (StudentT(5, 0.3), 1, REAL, lambda o: scipy.stats.t(5, column(o, 0), 0.3)),
    "LogNormal": (
        LogNormal(0.3),
        1,
        np.array([[0.2], [1.0], [7.5]]),
        lambda o: scipy.stats.lognorm(0.3, scale=np.exp(column(o, 0))),
    ),
    "Bernoulli": (
        Bernoulli(),
        1,
        np.array([[0.0], [1.0], [1.0]]),
        lambda o: scipy.stats.bernoulli(scipy.special.expit(column(o, 0))),
    ),
    "Poisson": (Poisson(), 1, COUNTS, lambda o: scipy.stats.poisson(np.exp(column(o, 0)))),
    "NegativeBinomial": (NegativeBinomial(2.5), 1, COUNTS, lambda o: negative_binomial(o, 2.5)),
}
every_likelihood = pytest.mark.parametrize(
    ("likelihood", "units", "y", "exact"),
    [pytest.param(*case, id=name) for name, case in EXACT.items()],
)


@every_likelihood
def test_the_log_density_equals_that_of_scipy(likelihood, units, y, exact):
    output = torch.randn(3, units, dtype=torch.float64)
    reference = exact(output)
    expected = reference.logpdf(y) if hasattr(reference, "pdf") else reference.logpmf(y)
    actual = likelihood(output).log_prob(torch.tensor(y))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)


@every_likelihood
def test_mean_and_variance_equal_those_of_scipy(likelihood, units, y, exact):
    output = torch.randn(3, units, dtype=torch.float64)
    distribution = likelihood(output)
    np.testing.assert_allclose(distribution.mean.numpy(), exact(output).mean(), rtol=1e-12)
    np.testing.assert_allclose(distribution.variance.numpy(), exact(output).var(), rtol=1e-12)


@every_likelihood
def test_a_fixed_likelihood_has_no_latent_sites(likelihood, units, y, exact):
    assert not likelihood.latents
    with poutine.trace() as tracer:
        likelihood(torch.randn(3, units))
    assert not tracer.trace.nodes


def test_categorical_equals_a_softmax_over_the_classes():
    output = torch.randn(4, 3, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 2])
    expected = scipy.special.log_softmax(output.numpy(), axis=1)[np.arange(4), labels.numpy()]
    np.testing.assert_allclose(Categorical()(output).log_prob(labels).numpy(), expected)


@pytest.mark.parametrize("total_count", [0.5, 4.0])
def test_negative_binomial_has_the_output_as_log_mean_and_variance_m_plus_m2_over_r(total_count):
    log_mean = torch.linspace(-2, 3, 6, dtype=torch.float64)[:, None]
    distribution = NegativeBinomial(total_count)(log_mean)
    m = log_mean.exp()
    torch.testing.assert_close(distribution.mean, m)
    torch.testing.assert_close(distribution.variance, m + m**2 / total_count)


def traced(likelihood, output):
    with poutine.trace() as tracer:
        distribution = likelihood(output)
    return distribution, tracer.trace.nodes


@pytest.mark.parametrize("kind", [Gaussian, LogNormal, StudentT])
@pytest.mark.parametrize("log_sd", [1.0, 0.25])
def test_the_learned_noise_scale_is_a_latent_site_with_a_log_normal_prior(kind, log_sd):
    output = torch.randn(3, 2, dtype=torch.float64)
    distribution, nodes = traced(kind(noise_median=2.0, noise_log_sd=log_sd), output)
    assert list(nodes) == ["noise_scale"]
    site = nodes["noise_scale"]
    assert site["fn"].event_shape == ()
    expected = scipy.stats.lognorm(log_sd, scale=2.0).logpdf(0.7)
    torch.testing.assert_close(site["fn"].log_prob(torch.tensor(0.7).double()).item(), expected)
    torch.testing.assert_close(distribution.scale, site["value"].expand(3, 2))


@pytest.mark.parametrize("kind", [Gaussian, LogNormal, StudentT])
def test_a_tuple_of_medians_makes_one_noise_scale_per_output(kind):
    output = torch.zeros(5, 2, dtype=torch.float64)
    likelihood = kind(noise_median=(0.1, 3.0), noise_log_sd=0.5)
    distribution, nodes = traced(likelihood, output)
    site = nodes["noise_scale"]
    assert (site["fn"].batch_shape, site["fn"].event_shape) == ((), (2,))
    scale = torch.tensor([0.2, 2.0], dtype=torch.float64)
    expected = scipy.stats.lognorm(0.5, scale=[0.1, 3.0]).logpdf(scale.numpy()).sum()
    torch.testing.assert_close(site["fn"].log_prob(scale).item(), expected)
    torch.testing.assert_close(distribution.scale, site["value"].expand(5, 2))


def test_the_learned_total_count_is_a_latent_site_with_a_log_normal_prior():
    distribution, nodes = traced(NegativeBinomial(), torch.randn(3, 1, dtype=torch.float64))
    site = nodes["total_count"]
    expected = scipy.stats.lognorm(1.5, scale=10).logpdf(4.0)
    torch.testing.assert_close(site["fn"].log_prob(torch.tensor(4.0).double()).item(), expected)
    torch.testing.assert_close(distribution.total_count, site["value"].expand(3, 1))


@pytest.mark.parametrize(
    ("likelihood", "name", "median"),
    [
        (Gaussian(noise_median=0.2), "noise_scale", 0.2),
        (Gaussian(noise_median=(0.2, 3.0)), "noise_scale", [0.2, 3.0]),
        (LogNormal(noise_median=0.2), "noise_scale", 0.2),
        (StudentT(noise_median=0.2), "noise_scale", 0.2),
        (NegativeBinomial(), "total_count", 10.0),
    ],
    ids=repr,
)
def test_latents_name_the_sites_that_the_likelihood_draws(likelihood, name, median):
    assert list(likelihood.latents) == [name]
    _, nodes = traced(likelihood, torch.randn(3, 2))
    assert list(nodes) == [name]
    assert nodes[name]["fn"].event_shape == likelihood.latents[name].event_shape
    sites = BayesianNetwork(mlp(3, [], 2), likelihood=likelihood).latent_sites()
    assert [site.name for site in sites] == ["0.weight", "0.bias", name]
    torch.testing.assert_close(sites[-1].start, torch.tensor(median))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("likelihood", [Gaussian(), StudentT(), NegativeBinomial()], ids=repr)
def test_latents_have_the_dtype_of_the_network(likelihood, dtype):
    network = BayesianNetwork(mlp(3, [], 1).to(dtype), likelihood=likelihood)
    assert {site.start.dtype for site in network.latent_sites()} == {dtype}
    value = torch.tensor(0.5, dtype=dtype)
    data = dict.fromkeys(likelihood.latents, value)
    with poutine.trace() as tracer, poutine.condition(data=data):
        likelihood(torch.zeros(4, 1, dtype=dtype))
    (site,) = tracer.trace.nodes.values()
    assert site["fn"].log_prob(value).dtype == dtype


@pytest.mark.parametrize("kind", [Gaussian, LogNormal, StudentT])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "`scale` must be positive, got 0.0"),
        ({"scale": -1}, "`scale` must be positive, got -1"),
        ({"scale": math.nan}, "`scale` must be finite, got nan"),
        ({"noise_median": 0}, "`noise_median` must be positive, got 0"),
        ({"noise_median": (1.0, -2.0)}, "`noise_median` must be positive, got -2.0"),
        ({"noise_log_sd": 0.0}, "`noise_log_sd` must be positive, got 0.0"),
        ({"noise_log_sd": math.inf}, "`noise_log_sd` must be finite, got inf"),
    ],
)
def test_noise_must_be_in_range(kind, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**options)


@pytest.mark.parametrize("kind", [Gaussian, LogNormal, StudentT])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "0.1"}, "`scale` must be a number, got '0.1'"),
        ({"scale": True}, "`scale` must be a number, got True"),
        ({"noise_median": [1.0, 2.0]}, "`noise_median` must be a number, got [1.0, 2.0]"),
        ({"noise_log_sd": None}, "`noise_log_sd` must be a number, got None"),
    ],
)
def test_noise_must_be_a_number(kind, options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        kind(**options)


@pytest.mark.parametrize("df", [2, 1.0, -3])
def test_student_t_noise_must_have_a_variance(df):
    message = f"`df` must be above 2, so that the noise has a variance, got {df}"
    with pytest.raises(ValueError, match=re.escape(message)):
        StudentT(df=df)


def test_total_count_must_be_positive():
    with pytest.raises(ValueError, match=r"`total_count` must be positive, got 0"):
        NegativeBinomial(0)


def network_of(likelihood, units, *last):
    return BayesianNetwork(nn.Sequential(nn.Linear(3, units), *last), likelihood=likelihood)


X = np.random.default_rng(0).standard_normal((4, 3))
FLAT, TALL = np.arange(4.0) % 2, np.arange(4.0).reshape(4, 1) % 2
COLUMN_FIX, FLAT_FIX = "Pass y.reshape(-1, 1).", "Pass y[..., 0]."
LIKE_OUTPUT = "in the shape of the network's output"

# Likelihood, units, y, the required shape of y, and the remedy in the message.
WRONG_SHAPES = [
    (Gaussian(0.1), 1, FLAT, (4, 1), COLUMN_FIX),
    (Gaussian(), 1, FLAT, (4, 1), COLUMN_FIX),
    (HeteroscedasticGaussian(), 2, FLAT, (4, 1), COLUMN_FIX),
    (LogNormal(), 1, 1 + FLAT, (4, 1), COLUMN_FIX),
    (StudentT(), 1, FLAT, (4, 1), COLUMN_FIX),
    (Bernoulli(), 1, FLAT, (4, 1), COLUMN_FIX),
    (Poisson(), 1, FLAT, (4, 1), COLUMN_FIX),
    (NegativeBinomial(), 1, FLAT, (4, 1), COLUMN_FIX),
    (Categorical(), 3, TALL, (4,), FLAT_FIX),
    (Gaussian(), 2, TALL, (4, 2), f"For `Gaussian`, y must be real numbers {LIKE_OUTPUT}."),
    (Gaussian(), 2, FLAT, (4, 2), f"For `Gaussian`, y must be real numbers {LIKE_OUTPUT}."),
    (StudentT(), 2, FLAT, (4, 2), f"For `StudentT`, y must be real numbers {LIKE_OUTPUT}."),
    (
        HeteroscedasticGaussian(),
        4,
        TALL,
        (4, 2),
        "For `HeteroscedasticGaussian`, the network must end in twice as many units as y has "
        "columns: means, then raw scales.",
    ),
    (Bernoulli(), 2, TALL, (4, 2), f"For `Bernoulli`, y must be 0 or 1 {LIKE_OUTPUT}."),
    (Poisson(), 2, TALL, (4, 2), f"For `Poisson`, y must hold counts 0, 1, 2, ... {LIKE_OUTPUT}."),
    (
        NegativeBinomial(),
        2,
        TALL,
        (4, 2),
        f"For `NegativeBinomial`, y must hold counts 0, 1, 2, ... {LIKE_OUTPUT}.",
    ),
    (
        Categorical(),
        3,
        np.eye(4)[:, :3],
        (4,),
        "For `Categorical`, y must hold class labels 0 .. K-1 in the shape of the output without "
        "its last dimension, which is the K classes.",
    ),
]
every_wrong_shape = pytest.mark.parametrize(
    ("likelihood", "units", "y", "expected", "fix"),
    [
        pytest.param(*c, id=f"{c[0]} with {c[1]} units and y of shape {c[2].shape}")
        for c in WRONG_SHAPES
    ],
)


def shape_message(y, expected, fix):
    return re.escape(
        f"`y` has shape {y.shape}, but with this network and likelihood it must have shape "
        f"{expected}. {fix}"
    )


@every_wrong_shape
def test_y_of_a_wrong_shape_raises_with_the_remedy(likelihood, units, y, expected, fix):
    with pytest.raises(ValueError, match=shape_message(y, expected, fix)):
        network_of(likelihood, units).prepare(X, y)


@every_wrong_shape
def test_the_pyro_model_raises_for_y_of_a_wrong_shape(likelihood, units, y, expected, fix):
    network = network_of(likelihood, units)
    with pytest.raises(ValueError, match=shape_message(y, expected, fix)):
        network(torch.tensor(X).float(), torch.tensor(y).float())


@pytest.mark.parametrize("options", [{}, {"num_particles": 3, "vectorize_particles": True}])
def test_stock_svi_raises_before_y_broadcasts(options):
    network = network_of(Gaussian(0.1), 1)
    svi = SVI(
        network, MeanFieldGuide(network), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(**options)
    )
    with pytest.raises(ValueError, match=re.escape("it must have shape (4, 1). " + COLUMN_FIX)):
        svi.step(torch.tensor(X).float(), torch.tensor(FLAT).float())


@pytest.mark.parametrize(("units", "y"), [(1, TALL), (2, np.hstack([TALL, TALL]))])
@pytest.mark.parametrize("likelihood", [Gaussian(), Bernoulli(), Poisson()], ids=repr)
def test_y_of_the_shape_of_the_output_is_accepted(likelihood, units, y):
    _, prepared = network_of(likelihood, units).prepare(X, y)
    assert prepared.dtype == torch.float32
    assert prepared.tolist() == y.tolist()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64, np.bool_])
def test_integral_labels_of_any_dtype_are_accepted(dtype):
    labels = np.array([0, 1, 1, 0]).astype(dtype)
    _, prepared = network_of(Categorical(), 3).prepare(X, labels)
    assert prepared.dtype == torch.int64
    assert prepared.tolist() == [0, 1, 1, 0]


def test_y_without_columns_matches_an_output_without_units():
    class Flat(nn.Linear):
        def forward(self, x):
            return super().forward(x)[:, 0]

    network = BayesianNetwork(Flat(3, 1), likelihood=Gaussian(0.1))
    assert network.prepare(X, FLAT)[1].shape == (4,)
    with pytest.raises(ValueError, match=shape_message(TALL, (4,), FLAT_FIX)):
        network.prepare(X, TALL)


@pytest.mark.parametrize(
    ("likelihood", "units", "y", "row", "value"),
    [
        (Categorical(), 3, [0, 1, 3, 4], 2, "3"),
        (Categorical(), 3, [0, -1, 2, 1], 1, "-1"),
        (Categorical(), 3, [0.0, 1.0, 1.0, 0.5], 3, "0.5"),
        (Bernoulli(), 1, [[0], [1], [2], [1]], 2, "2"),
        (Bernoulli(), 1, [[0], [1], [1], [0.5]], 3, "0.5"),
        (Bernoulli(), 2, [[0, 1], [-1, 1], [0, 0], [0, 0]], 1, r"\[-1, 1\]"),
        (Poisson(), 1, [[0], [-1], [2], [1]], 1, "-1"),
        (Poisson(), 1, [[0], [1], [2], [1.5]], 3, "1.5"),
        (NegativeBinomial(), 1, [[-3], [1], [2], [1]], 0, "-3"),
        (NegativeBinomial(2.0), 1, [[0], [1], [0.1], [1]], 2, "0.1"),
    ],
)
def test_y_outside_the_support_raises_with_its_row(likelihood, units, y, row, value):
    classes = r" \(0 \.\. 2\)" if isinstance(likelihood, Categorical) else ""
    name = type(likelihood).__name__
    message = (
        f"`y` holds values outside the likelihood's support{classes}, the first in row {row}: "
        rf"{value}\. For `{name}`, y must"
    )
    with pytest.raises(ValueError, match=message):
        network_of(likelihood, units).prepare(X, y)


def test_a_support_that_differs_by_row_is_not_checked():
    network = network_of(lambda output: dist.Uniform(output - 1, output + 1), 1)
    x, y = network.prepare(X, 100 + TALL)
    with pytest.raises(ValueError, match="within the support"):
        poutine.trace(network).get_trace(x, y).log_prob_sum()


def test_categorical_raises_for_a_network_that_ends_in_a_softmax():
    network = network_of(Categorical(), 3, nn.Softmax(dim=-1))
    with pytest.raises(ValueError, match=r"takes logits.*remove the network's final softmax"):
        network.prepare(X, [0, 1, 2, 0])


def test_categorical_raises_for_a_softmax_that_is_not_a_module():
    class Probabilities(nn.Linear):
        def forward(self, x):
            return super().forward(x).softmax(-1)

    network = BayesianNetwork(Probabilities(3, 3), likelihood=Categorical())
    with pytest.raises(ValueError, match=r"takes logits.*remove the network's final softmax"):
        network.prepare(X, [0, 1, 2, 0])


def test_categorical_accepts_log_probabilities():
    network = network_of(Categorical(), 3, nn.LogSoftmax(dim=-1))
    assert network.prepare(X, [0, 1, 2, 0])[1].tolist() == [0, 1, 2, 0]


def test_bernoulli_raises_for_a_network_that_ends_in_a_sigmoid():
    for last in (nn.Sigmoid(), nn.Sequential(nn.Identity(), nn.Sigmoid())):
        with pytest.raises(ValueError, match=r"takes log-odds.*remove the network's final nn\.Sig"):
            network_of(Bernoulli(), 1, last).prepare(X, TALL)


def test_categorical_raises_for_a_single_unit():
    message = "needs one output unit per class, got 1 unit: use `Bernoulli` for two classes"
    with pytest.raises(ValueError, match=message):
        network_of(Categorical(), 1).prepare(X, FLAT)


@pytest.mark.parametrize("units", [1, 3])
def test_heteroscedastic_gaussian_raises_for_an_odd_number_of_units(units):
    network = network_of(HeteroscedasticGaussian(), units)
    message = (
        "`HeteroscedasticGaussian` needs an even number of output units, means and raw scales, got "
        f"{units}: end the network in twice as many units"
    )
    with pytest.raises(ValueError, match=message):
        network.prepare(X, TALL)
    with pytest.raises(ValueError, match=message):
        network(torch.tensor(X).float(), torch.tensor(TALL).float())


def test_a_likelihood_must_return_one_distribution_per_row():
    network = network_of(lambda output: dist.Normal(output.mean(), 1.0), 1)
    with pytest.raises(
        ValueError, match=r"must return one distribution per row.*got batch shape \(\)"
    ):
        network.prepare(X, TALL)


@pytest.mark.parametrize(
    ("likelihood", "units", "y", "exact"),
    [
        (
            lambda output: dist.LogNormal(output, 0.5),
            1,
            np.array([[0.5], [1.0], [2.0], [3.0]]),
            lambda o, y: scipy.stats.lognorm(0.5, scale=np.exp(o)).logpdf(y).sum(),
        ),
        (
            lambda output: dist.OneHotCategorical(logits=output),
            3,
            np.eye(3)[[0, 2, 1, 1]],
            lambda o, y: (scipy.special.log_softmax(o, axis=1) * y).sum(),
        ),
        (
            lambda output: dist.MultivariateNormal(output, torch.eye(2)),
            2,
            np.hstack([TALL, TALL]),
            lambda o, y: scipy.stats.norm(o, 1).logpdf(y).sum(),
        ),
        (
            lambda output: dist.MixtureSameFamily(
                dist.Categorical(torch.ones(2)), dist.Normal(output[..., None], torch.ones(2))
            ),
            1,
            TALL,
            lambda o, y: scipy.stats.norm(o, 1).logpdf(y).sum(),
        ),
    ],
    ids=["log-normal", "one-hot", "multivariate", "mixture"],
)
def test_any_callable_from_output_to_distribution_is_a_likelihood(likelihood, units, y, exact):
    network = network_of(likelihood, units)
    x, prepared = network.prepare(X, y)
    assert prepared.dtype == x.dtype == torch.float32
    trace = poutine.trace(network).get_trace(x, prepared)
    with torch.no_grad():
        output = network.output(
            {name: trace.nodes[name]["value"][None] for name in ("0.weight", "0.bias")}, x
        )[0]
    actual = trace.nodes["y"]["fn"].log_prob(prepared).sum()
    assert actual.item() == pytest.approx(exact(output.double().numpy(), y), rel=1e-4)


@pytest.mark.parametrize("units", [1, 3])
def test_the_number_of_noise_scales_must_match_the_columns(units):
    network = BayesianNetwork(mlp(2, [], units), None, Gaussian(noise_median=(0.5, 0.5)))
    message = (
        "`noise_median` must have one value per column of y, got 2 values for a network that ends "
        rf"in {units} unit\(s\)"
    )
    with pytest.raises(ValueError, match=message):
        network.prepare(np.zeros((4, 2)), np.zeros((4, units)))


def test_a_gaussian_may_have_a_noise_scale_for_each_column():
    y, output = torch.randn(5, 2), torch.randn(5, 2)
    log_prob = Gaussian((0.1, 0.5)).given(output, {}).log_prob(y)
    for k, scale in enumerate((0.1, 0.5)):
        torch.testing.assert_close(
            log_prob[:, k], Gaussian(scale).given(output, {}).log_prob(y)[:, k]
        )
    with pytest.raises(ValueError, match="one value per column of y, got 2 values for a network"):
        Gaussian((0.1, 0.5)).given(output[:, :1], {})
    with pytest.raises(ValueError, match="`scale` must be"):
        Gaussian((0.1, -0.5))


@pytest.mark.parametrize("kind", [LogNormal, StudentT])
def test_only_the_gaussian_takes_a_scale_for_each_column(kind):
    assert Gaussian(scale=(1.0, 2.0)).scale == (1.0, 2.0)
    with pytest.raises((TypeError, ValueError), match=r"`scale` must be .*\(1.0, 2.0\)"):
        kind(scale=(1.0, 2.0))
    with pytest.raises((TypeError, ValueError), match=r"`noise_log_sd` must be .*\(1.0, 2.0\)"):
        kind(noise_log_sd=(1.0, 2.0))
