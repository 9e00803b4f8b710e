"""Priors against SciPy's densities, torch's mixture, and the requested scale."""

import math
import re

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily
from torch.distributions import Normal as TorchNormal

from pyrobbb import BayesianNetwork, mlp
from pyrobbb.priors import (
    ByName,
    FanInNormal,
    Given,
    Laplace,
    Learned,
    Normal,
    ScaleMixture,
    ScaleMixtureNormal,
    StudentT,
    fan_in,
)


def mixture_logpdf(w, pi, scale1, scale2):
    components = [scipy.stats.norm(0, scale).logpdf(w) for scale in (scale1, scale2)]
    weights = np.array([pi, 1 - pi]).reshape(2, *[1] * np.ndim(w))
    return scipy.special.logsumexp(components, axis=0, b=weights)


# Prior, log-density, standard deviation and kurtosis E[w^4] / sd^4, as functions of the fan-in.
EXACT = {
    "Normal": (
        Normal(0.7, loc=-0.2),
        lambda w, fan: scipy.stats.norm(-0.2, 0.7).logpdf(w),
        lambda fan: (0.7, 3.0),
    ),
    "FanInNormal": (
        FanInNormal(2.0),
        lambda w, fan: scipy.stats.norm(0, 2 / math.sqrt(fan)).logpdf(w),
        lambda fan: (2 / math.sqrt(fan), 3.0),
    ),
    "ScaleMixture": (
        ScaleMixture(0.25, 1.5, 0.1),
        lambda w, fan: mixture_logpdf(w, 0.25, 1.5, 0.1),
        lambda fan: (
            math.sqrt(0.25 * 1.5**2 + 0.75 * 0.1**2),
            3 * (0.25 * 1.5**4 + 0.75 * 0.1**4) / (0.25 * 1.5**2 + 0.75 * 0.1**2) ** 2,
        ),
    ),
    "Laplace": (
        Laplace(0.3),
        lambda w, fan: scipy.stats.laplace(0, 0.3).logpdf(w),
        lambda fan: (0.3 * math.sqrt(2), 6.0),
    ),
    "StudentT": (
        StudentT(10.0, 0.5),
        lambda w, fan: scipy.stats.t(10, 0, 0.5).logpdf(w),
        lambda fan: (0.5 * math.sqrt(10 / 8), 3 + 6 / (10 - 4)),
    ),
}
every_prior = pytest.mark.parametrize(
    ("prior", "logpdf", "moments"), [pytest.param(*case, id=name) for name, case in EXACT.items()]
)


@every_prior
@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 3, 5, 5)])
def test_the_log_density_is_that_of_scipy_summed_over_the_parameter(prior, logpdf, moments, shape):
    w = torch.randn(shape, dtype=torch.float64)
    expected = logpdf(w.numpy(), math.prod(shape[1:])).sum()
    distribution = prior("weight", torch.empty(shape, dtype=torch.float64))
    torch.testing.assert_close(distribution.log_prob(w), torch.tensor(expected))


@every_prior
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3, 4)])
def test_a_prior_has_the_parameters_shape_and_dtype(prior, logpdf, moments, dtype, shape):
    distribution = prior("weight", nn.Parameter(torch.zeros(shape, dtype=dtype)))
    assert distribution.event_shape == shape
    assert distribution.batch_shape == ()
    w = torch.full(shape, 0.5, dtype=dtype)
    log_prob = distribution.log_prob(w)
    assert (log_prob.shape, log_prob.dtype) == ((), dtype)
    exact = logpdf(w.double().numpy(), math.prod(shape[1:])).sum()
    assert log_prob.item() == pytest.approx(exact, rel=4 * torch.finfo(dtype).eps)
    if dtype != torch.bfloat16:  # in which torch cannot draw from a Student t
        draw = distribution.sample()
        assert (draw.shape, draw.dtype) == (shape, dtype)


@every_prior
def test_samples_have_the_configured_standard_deviation(prior, logpdf, moments):
    n = 40_000
    sd, kurtosis = moments(4)
    distribution = prior("weight", torch.empty(10, 4, dtype=torch.float64))
    draws = distribution.sample((n // 40,)) - distribution.mean
    standard_error = sd * math.sqrt((kurtosis - 1) / (4 * n))
    assert draws.pow(2).mean().sqrt().item() == pytest.approx(sd, abs=4 * standard_error)
    torch.testing.assert_close(distribution.variance.sqrt(), torch.full((10, 4), sd).double())


@pytest.mark.parametrize(
    ("module", "scale"),
    [
        (nn.Linear(9, 4), 2 / 3),
        (nn.Conv2d(3, 5, 2), 2 / math.sqrt(12)),
        (nn.Conv1d(8, 6, 2, groups=2), 2 / math.sqrt(8)),
        (nn.Embedding(7, 16), 2 / 4),
    ],
    ids=str,
)
def test_fan_in_normal_divides_the_gain_by_root_fan_in(module, scale):
    distribution = FanInNormal(2.0)("weight", module.weight)
    torch.testing.assert_close(distribution.stddev, torch.full_like(module.weight, scale))


@pytest.mark.parametrize("shape", [(), (5,)])
def test_fan_in_normal_uses_the_gain_itself_for_vectors(shape):
    distribution = FanInNormal(2.0)("bias", torch.zeros(shape))
    torch.testing.assert_close(distribution.stddev, torch.full(shape, 2.0))


@pytest.mark.parametrize(
    ("shape", "expected"), [((), 1), ((5,), 1), ((5, 3), 3), ((5, 3, 2, 2), 12)]
)
def test_fan_in_is_the_product_of_all_dimensions_but_the_first(shape, expected):
    assert fan_in(torch.empty(shape)) == expected


def test_the_output_of_a_layer_keeps_its_scale_under_fan_in_normal_priors():
    for width in (10, 1000):
        w = FanInNormal()("weight", torch.empty(1, width)).sample((4000,))
        output = w[:, 0] @ torch.ones(width)
        # The sd of n normal values has the standard error sd / sqrt(2 n).
        assert output.std().item() == pytest.approx(1, abs=4 / math.sqrt(8000))


def by_torch(mixture):
    return MixtureSameFamily(
        Categorical(probs=torch.stack([mixture.pi, 1 - mixture.pi], -1)),
        TorchNormal(
            torch.zeros(*mixture.pi.shape, 2, dtype=mixture.pi.dtype),
            torch.stack([mixture.scale1, mixture.scale2], -1),
        ),
    )


@pytest.fixture(params=[(), (3,)], ids=["scalar", "three elements"])
def mixture(request):
    def parameter(low, high):
        return low + (high - low) * torch.rand(request.param, dtype=torch.float64)

    return ScaleMixtureNormal(parameter(0.2, 0.8), parameter(1, 2), parameter(0.01, 0.1))


def test_the_mixture_has_the_log_density_of_the_torch_mixture(mixture):
    w = torch.linspace(-4, 4, 101, dtype=torch.float64)[:, None].expand(101, 3)
    w = w if mixture.batch_shape else w[:, 0]
    torch.testing.assert_close(mixture.log_prob(w), by_torch(mixture).log_prob(w))


def test_the_mixture_has_the_moments_of_the_torch_mixture(mixture):
    torch.testing.assert_close(mixture.mean, by_torch(mixture).mean)
    torch.testing.assert_close(mixture.variance, by_torch(mixture).variance)


def mixture_cdf(w, pi, scale1, scale2):
    first, second = (scipy.stats.norm.cdf(w, 0, scale) for scale in (scale1, scale2))
    return pi * first + (1 - pi) * second


def test_samples_of_the_mixture_have_its_distribution(mixture):
    draws = mixture.sample((4000,)).reshape(4000, -1)
    for i, draw in enumerate(draws.unbind(-1)):
        parameters = [p.reshape(-1)[i].item() for p in (mixture.pi, mixture.scale1, mixture.scale2)]
        assert scipy.stats.kstest(draw.numpy(), mixture_cdf, args=parameters).pvalue > 1e-3


def test_the_mixture_broadcasts_and_expands():
    mixture = ScaleMixtureNormal(torch.tensor([0.2, 0.6]), torch.tensor(1.0), torch.tensor(0.1))
    assert mixture.batch_shape == (2,)
    expanded = mixture.expand((3, 2))
    assert expanded.sample((4,)).shape == (4, 3, 2)
    w = torch.randn(3, 2)
    torch.testing.assert_close(expanded.log_prob(w), mixture.log_prob(w))
    torch.testing.assert_close(expanded.variance, mixture.variance.expand(3, 2))


def test_the_mixture_checks_its_parameters_and_values():
    one = torch.tensor(1.0)
    with pytest.raises(ValueError, match="parameter scale2"):
        ScaleMixtureNormal(one / 2, one, -one, validate_args=True)
    with pytest.raises(ValueError, match="parameter pi"):
        ScaleMixtureNormal(2 * one, one, one, validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        ScaleMixtureNormal(one / 2, one, one, validate_args=True).log_prob(one * math.nan)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.0025])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_mixture_is_finite_at_fifty_scales(dtype, scale, sign):
    w = torch.full((), sign * 50 * scale, dtype=dtype, requires_grad=True)
    log_prob = ScaleMixture()("weight", w).log_prob(w)
    (gradient,) = torch.autograd.grad(log_prob, w)
    # In the tails the narrow component is negligible.
    exact = scipy.stats.norm.logpdf(w.item()) + math.log(0.5)
    tolerance = 8 * torch.finfo(dtype).eps
    assert log_prob.item() == pytest.approx(exact, rel=tolerance)
    assert gradient.item() == pytest.approx(-w.item(), rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prior", [case[0] for case in EXACT.values()], ids=list(EXACT))
def test_every_prior_is_finite_at_fifty_scales(prior, dtype):
    w = torch.full((2, 3), 75.0, dtype=dtype, requires_grad=True)
    log_prob = prior("weight", w).log_prob(w)
    (gradient,) = torch.autograd.grad(log_prob, w)
    assert log_prob.isfinite()
    assert (gradient < 0).all()
    assert gradient.isfinite().all()


POSITIVE = [
    (Normal, "scale"),
    (FanInNormal, "gain"),
    (ScaleMixture, "scale1"),
    (ScaleMixture, "scale2"),
    (Laplace, "scale"),
    (StudentT, "df"),
    (StudentT, "scale"),
]


@pytest.mark.parametrize(("prior", "argument"), POSITIVE)
@pytest.mark.parametrize("value", [0, 0.0, -0.5])
def test_a_scale_must_be_positive(prior, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be positive, got {value}"):
        prior(**{argument: value})


@pytest.mark.parametrize(("prior", "argument"), [*POSITIVE, (Normal, "loc"), (ScaleMixture, "pi")])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_argument_must_be_finite(prior, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be finite, got {value}"):
        prior(**{argument: value})


@pytest.mark.parametrize(("prior", "argument"), [*POSITIVE, (Normal, "loc"), (ScaleMixture, "pi")])
@pytest.mark.parametrize("value", [True, "1.0", None])
def test_an_argument_must_be_a_number(prior, argument, value):
    message = re.escape(f"`{argument}` must be a number, got {value!r}.")
    with pytest.raises(TypeError, match=message):
        prior(**{argument: value})


LEARNABLE = [(family, family.argument) for family in (Normal, FanInNormal, Laplace, StudentT)]
LEARNABLE.append((ScaleMixture, "scale1"))


@pytest.mark.parametrize(("prior", "argument"), LEARNABLE)
def test_a_learned_scale_has_the_default_hyperprior_or_a_given_one(prior, argument):
    assert prior(**{argument: "learned"}) == prior(**{argument: Learned(1.0, 1.0)})
    narrow = prior(**{argument: Learned(0.3, log_sd=0.2)})
    assert narrow != prior(**{argument: "learned"})
    hyperprior = narrow.learned.hyperprior(torch.zeros(2, dtype=torch.float64))
    s = np.array([0.01, 0.3, 4.0])
    expected = scipy.stats.lognorm(0.2, scale=0.3).logpdf(s)
    np.testing.assert_allclose(hyperprior.log_prob(torch.as_tensor(s)), expected)
    assert prior().learned is None
    assert narrow.site("0.weight") == f"0.weight_{argument}"


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
@pytest.mark.parametrize(("prior", "argument"), LEARNABLE)
def test_the_prior_given_draws_of_the_scale_is_the_prior_of_that_scale(prior, argument, shape):
    options = {"scale2": 0.1} if prior is ScaleMixture else {}
    w = torch.randn(2, *shape, dtype=torch.float64)
    given = prior(**{argument: Learned(0.5)}, **options).given(w[0], torch.tensor([0.2, 3.0]))
    assert (given.batch_shape, given.event_shape) == ((2,), shape)
    for i, s in enumerate([0.2, 3.0]):
        scaled = {"scale2": 0.1 * s / 0.5} if options else {}
        fixed = prior(**{argument: s}, **scaled)("weight", w[0])
        torch.testing.assert_close(given.log_prob(w)[i], fixed.log_prob(w[i]), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("prior", "argument"),
    [(Normal, "loc"), (StudentT, "df"), (ScaleMixture, "pi"), (ScaleMixture, "scale2")],
)
@pytest.mark.parametrize("value", ["learned", Learned()])
def test_only_scales_can_be_learned(prior, argument, value):
    with pytest.raises(TypeError, match=f"`{argument}` must be a number, got "):
        prior(**{argument: value})


@pytest.mark.parametrize("argument", ["median", "log_sd"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_hyperprior_needs_positive_numbers(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be "):
        Learned(**{argument: value})


@pytest.mark.parametrize("pi", [0, 1, -0.1, 1.5])
def test_the_mixture_weight_must_be_strictly_between_zero_and_one(pi):
    with pytest.raises(ValueError, match=f"`pi` must be strictly between 0 and 1, got {pi}"):
        ScaleMixture(pi=pi)


W = torch.zeros(2, 2)


def test_by_name_uses_the_first_matching_pattern():
    prior = ByName({"0.weight": Normal(0.1), "0.*": Normal(0.2), "*": Normal(0.3)})
    scales = [prior(name, W).stddev[0, 0].item() for name in ("0.weight", "0.bias", "1.weight")]
    assert scales == pytest.approx([0.1, 0.2, 0.3])
    prior = ByName({"*": Normal(0.3), "0.weight": Normal(0.1)})
    assert prior("0.weight", W).stddev[0, 0].item() == pytest.approx(0.3)


def test_by_name_is_case_sensitive():
    assert ByName({"A": Normal(0.1)}).choice("a") == FanInNormal()


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 1 / math.sqrt(2)), ({"default": Laplace(0.5)}, math.sqrt(0.5))],
    ids=["FanInNormal by default", "given"],
)
def test_by_name_uses_the_default_where_no_pattern_matches(options, scale):
    distribution = ByName({"b*": Normal(9.0)}, **options)("a", W)
    torch.testing.assert_close(distribution.stddev, torch.full((2, 2), scale))


def test_none_means_a_point_parameter_in_patterns_and_as_default():
    assert ByName({"b*": None})("bias", W) is None
    assert ByName({"w*": Normal()}, default=None)("bias", W) is None
    assert ByName({"w*": Normal()}, default=None)("weight", W) is not None


def test_by_name_may_be_nested():
    inner = ByName({"*.bias": None}, default=Normal(0.2))
    prior = ByName({"0.*": inner}, default=Normal(0.7))
    assert prior("0.bias", W) is None
    assert prior("0.weight", W).stddev[0, 0].item() == pytest.approx(0.2)
    assert prior("2.bias", W).stddev[0, 0].item() == pytest.approx(0.7)


def test_a_pattern_that_matches_nothing_is_reported_with_the_parameters():
    message = (
        "`patterns`: '*.wieght' matches no parameter. The parameters are: "
        "0.weight, 0.bias, 2.weight, 2.bias."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(mlp(2, [3], 1), ByName({"*.bias": None, "*.wieght": Normal()}))


@pytest.mark.parametrize("where", ["pattern", "default"])
def test_an_unmatched_pattern_of_a_nested_by_name_is_reported(where):
    inner = ByName({"2.bias": Normal()})
    prior = ByName({"0.*": inner, "2.*": None})
    if where == "default":
        prior = ByName({"2.*": None}, default=inner)
    message = "`patterns`: '2.bias' matches no parameter. The parameters are: 0.weight, 0.bias."
    with pytest.raises(ValueError, match=re.escape(message)):
        BayesianNetwork(mlp(2, [3], 1), prior)


def test_the_patterns_of_by_name_must_map_to_priors():
    with pytest.raises(TypeError, match=r"`patterns` must map name patterns to priors, got list"):
        ByName([("*", Normal())])
    with pytest.raises(TypeError, match=r"The prior of '\*.bias' must be a callable .*, got 1\.0"):
        ByName({"*.bias": 1.0})
    with pytest.raises(TypeError, match=r"The prior of 'default' must be a callable .*, got 'x'"):
        ByName({}, default="x")


# Means and scales given for each weight


def test_given_is_a_normal_per_weight_in_the_dtype_of_the_parameter():
    loc, scale = torch.randn(3, 4), torch.rand(3, 4) + 0.1
    distribution = Given({"w": loc}, {"w": scale})("w", torch.empty(3, 4, dtype=torch.float64))
    w = torch.randn(3, 4, dtype=torch.float64)
    expected = scipy.stats.norm(loc.double(), scale.double()).logpdf(w).sum()
    torch.testing.assert_close(distribution.log_prob(w), torch.tensor(expected))
    assert distribution.mean.dtype == torch.float64


def test_given_keeps_detached_copies():
    loc = torch.zeros(2, requires_grad=True)
    prior = Given({"w": loc}, {"w": torch.ones(2)})
    with torch.no_grad():
        loc.fill_(5.0)
    distribution = prior("w", torch.empty(2))
    assert distribution.mean.tolist() == [0.0, 0.0]
    assert not distribution.mean.requires_grad
    assert repr(prior) == "Given(w)"


def test_given_ignores_names_that_are_not_parameters():
    net = nn.Linear(1, 1)
    values = {name: torch.ones_like(p) for name, p in net.named_parameters()}
    prior = Given(
        values | {"noise_scale": torch.ones(())}, values | {"noise_scale": torch.ones(())}
    )
    network = BayesianNetwork(net, prior)
    assert [name for name, _ in network.bayesian_parameters()] == ["weight", "bias"]


ONES = {"w": torch.ones(2)}


@pytest.mark.parametrize(
    ("loc", "scale", "kind", "message"),
    [
        (torch.ones(2), ONES, TypeError, "`loc` must map the names of parameters to tensors"),
        (ONES, {"w": 1.0}, TypeError, "`scale` must map the names of parameters to tensors"),
        (
            ONES,
            {},
            ValueError,
            "`loc` and `scale` must have the same names, but only one has 'w'",
        ),
        (ONES, {"w": torch.zeros(2)}, ValueError, r"`scale` must be positive, got 0\.0 for 'w'"),
        (
            ONES,
            {"w": ONES["w"] / 0},
            ValueError,
            "`scale` must be finite, got NaN or infinity for 'w'",
        ),
        (
            {"w": ONES["w"] / 0},
            ONES,
            ValueError,
            "`loc` must be finite, got NaN or infinity for 'w'",
        ),
    ],
)
def test_given_raises_for_invalid_means_and_scales(loc, scale, kind, message):
    with pytest.raises(kind, match=message):
        Given(loc, scale)


def test_given_reports_the_parameter_that_is_missing_or_has_another_shape():
    prior = Given(ONES, ONES)
    message = "must have values for the parameter 'bias', got values for w"
    with pytest.raises(ValueError, match=message):
        prior("bias", torch.empty(2))
    with pytest.raises(
        ValueError, match=r"`loc` of 'w' must have the parameter's shape \(3,\), got"
    ):
        prior("w", torch.empty(3))
