"""Posteriors as models of BoTorch: values, gradients, transforms, acquisition, Thompson paths."""

import copy
import sys

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from support import QUICK_ESTIMATOR, RNG, X, Y, quick_fit, shared_fit, small_network
from torch import nn

from pyrobbb import BayesianNetwork, BBBRegressor, fit, last_layer, likelihoods, mlp, priors
from pyrobbb.surrogates import to_botorch

pytest.importorskip("botorch", reason="needs BoTorch, of the extra `botorch`")

from botorch.acquisition import (
    PosteriorMean,
    qExpectedImprovement,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qNoisyExpectedImprovement,
)
from botorch.acquisition.objective import (
    LinearMCObjective,
    PosteriorTransform,
    ScalarizedPosteriorTransform,
)
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.exceptions import UnsupportedError
from botorch.generation import MaxPosteriorSampling
from botorch.models import ModelList
from botorch.models.ensemble import EnsembleModel
from botorch.models.transforms import Normalize, Standardize
from botorch.models.transforms.input import InputPerturbation
from botorch.optim import optimize_acqf
from botorch.posteriors import PosteriorList
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.sampling.index_sampler import IndexSampler
from botorch.sampling.pathwise.posterior_samplers import get_matheron_path_model
from botorch.utils.sampling import optimize_posterior_samples

N_DRAWS = 6
TWO = np.hstack([Y, X[:, :1]])
NEW = torch.as_tensor(RNG.normal(size=(2, 5, 3)))
CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3], dtype=torch.float64)


class Trunk(nn.Module):
    """A frozen trunk, and a head that is not a sequence of layers."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 5), nn.Tanh()).requires_grad_(False)
        self.gate, self.head = nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, x):
        features = self.trunk(x)
        return self.head(features * torch.sigmoid(self.gate(features)))


class Recurrent(nn.Module):
    """Layers that `torch.vmap` cannot run."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.rnn(x[..., None])[0][:, -1])


def of_likelihood(likelihood, n_outputs=1, y=Y):
    return lambda: quick_fit(small_network(n_outputs, likelihood=likelihood), X, y)


MEMBERS = {
    "gaussian": shared_fit,
    "float32": lambda: quick_fit(small_network(dtype=torch.float32)),
    "low rank": lambda: quick_fit(guide="low_rank"),
    "chains": lambda: quick_fit(restarts=3),
    "auto_normal": lambda: quick_fit(guide="auto_normal", engine="svi"),
    "learned prior": lambda: quick_fit(small_network(prior=priors.Normal(scale="learned"))),
    "last layer": lambda: last_layer(small_network(), X, Y),
    "trunk": lambda: quick_fit(BayesianNetwork(Trunk().double())),
    "recurrent": lambda: quick_fit(BayesianNetwork(Recurrent().double())),
    "heteroscedastic": of_likelihood(likelihoods.HeteroscedasticGaussian(), 2),
    "student t": of_likelihood(likelihoods.StudentT(df=3)),
    "log-normal": of_likelihood(likelihoods.LogNormal(), y=np.exp(Y)),
    "poisson": of_likelihood(likelihoods.Poisson(), y=np.round(np.exp(Y / 2))),
    "two columns": of_likelihood(likelihoods.Gaussian((0.1, 0.5)), 2, TWO),
}


@pytest.fixture(scope="module")
def model():
    return shared_fit().to_botorch(N_DRAWS, seed=3)


@pytest.fixture(scope="module")
def of_two_outputs():
    return MEMBERS["two columns"]().to_botorch(N_DRAWS, seed=3)


@pytest.mark.parametrize("name", MEMBERS)
def test_mean_and_variance_are_those_of_the_prediction_with_the_same_seed(name):
    posterior = MEMBERS[name]()
    found = posterior.to_botorch(N_DRAWS, seed=3).posterior(NEW)
    expected = posterior.predict(NEW.flatten(0, 1).numpy(), N_DRAWS, seed=3)
    m = 2 if name == "two columns" else 1
    assert isinstance(found, EnsemblePosterior)
    assert found.values.shape == (2, N_DRAWS, 5, m)
    mean, sd = (
        torch.as_tensor(part).double().reshape(2, 5, m)
        for part in (expected.mean, expected.epistemic_sd)
    )
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.mean, mean, **tolerance)
    unbiased = (N_DRAWS / (N_DRAWS - 1)) ** 0.5
    torch.testing.assert_close(found.variance.sqrt(), unbiased * sd, **tolerance)


def test_a_member_is_the_module_under_one_draw_of_its_weights(model):
    posterior = shared_fit()
    draws = posterior.draws(N_DRAWS, seed=3)
    values = model.posterior(NEW[0]).values
    for i in range(N_DRAWS):
        weights = {name: draws[name][i] for name, _ in posterior.network.bayesian_parameters()}
        expected = torch.func.functional_call(posterior.network.net, weights, NEW[0])
        torch.testing.assert_close(values[i], expected)


@pytest.mark.parametrize("batch", [(), (1,), (2, 4), (0,)])
def test_the_batch_shape_is_that_of_x(model, batch):
    x = torch.as_tensor(RNG.normal(size=(*batch, 5, 3)))
    values = model.posterior(x).values
    assert values.shape == (*batch, N_DRAWS, 5, 1)
    for index in np.ndindex(*batch):
        torch.testing.assert_close(values[index], model.posterior(x[index]).values)


def test_x_of_another_shape_is_refused(model):
    for x in (torch.zeros(3), torch.zeros(4, 2)):
        with pytest.raises(ValueError, match=r"`X` must have shape \(\.\.\., q, 3\), got \("):
            model.posterior(x)


@pytest.mark.parametrize("name", ["gaussian", "trunk", "recurrent", "log-normal", "chains"])
def test_gradients_with_respect_to_x_are_those_of_finite_differences(name):
    built = MEMBERS[name]().to_botorch(3, seed=3)
    x = NEW[:, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: built.posterior(x).values, x)


def test_calls_repeat_their_values_and_leave_the_random_state(model):
    before = torch.get_rng_state()
    for options in ({}, {"observation_noise": True}):
        first, second = (model.posterior(NEW, **options).values for _ in range(2))
        assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    another = shared_fit().to_botorch(N_DRAWS, seed=4)
    assert not torch.allclose(another.posterior(NEW).values, model.posterior(NEW).values)


def test_values_have_the_precision_of_x_and_the_networks_double_precision(caplog):
    built = MEMBERS["float32"]().to_botorch(N_DRAWS, seed=3)
    double = built.posterior(NEW).values
    assert double.dtype == torch.float64
    single = built.posterior(NEW.float()).values
    assert single.dtype == torch.float32
    torch.testing.assert_close(double.float(), single, rtol=1e-5, atol=1e-5)
    step = 1e-9  # not representable beside 1 in single precision
    assert not torch.equal(built.posterior(NEW + step).values, double)


class OfFloats(nn.Module):
    """A module that fails in double precision."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x.float())


def test_a_module_of_single_precision_stays_so_with_a_line_in_the_log(caplog):
    posterior = quick_fit(BayesianNetwork(OfFloats()))
    with caplog.at_level("INFO", "pyrobbb"):
        built = posterior.to_botorch(N_DRAWS, seed=3)
    assert "stays in float32: its module fails in double precision" in caplog.text
    expected = posterior.predict(NEW[0].numpy(), N_DRAWS, seed=3).mean
    np.testing.assert_allclose(built.posterior(NEW[0]).mean, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "heteroscedastic", "poisson", "two columns"])
def test_observation_noise_adds_the_variance_of_the_likelihood(name):
    posterior, n = MEMBERS[name](), 4000
    built, x = posterior.to_botorch(n, seed=3), NEW[0, :2]
    noisy = built.posterior(x, observation_noise=True)
    expected = posterior.predict(x.numpy(), n, seed=3)
    sd = torch.as_tensor(expected.sd).reshape(noisy.mean.shape)
    error = sd / n**0.5
    assert bool(((noisy.mean - built.posterior(x).mean).abs() < 5 * error).all())
    kurtosis = ((noisy.values - noisy.mean) ** 4).mean(0) / noisy.variance**2
    assert bool((((noisy.variance / sd**2) - 1).abs() < 5 * ((kurtosis - 1) / n).sqrt()).all())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_points_of_integers_would_round_the_values_and_are_refused(model, dtype):
    with pytest.raises(TypeError, match=rf"`X` must hold real numbers, got {dtype}: pass X.double"):
        model.posterior(torch.ones(4, 3, dtype=dtype))


def test_given_observation_noise_is_refused(model):
    with pytest.raises(UnsupportedError, match="`observation_noise` must be True or False"):
        model.posterior(NEW, observation_noise=torch.ones(1, 1))


# Transforms and outputs: BoTorch's tests of its ensemble and deterministic models


def trained(m):
    transform = Standardize(m=m)
    transform(torch.as_tensor(RNG.normal(3, 7, size=(9, m))))
    return transform.eval()


def test_values_agree_with_those_transformed_by_hand():
    inner = Normalize(d=3, bounds=torch.tensor([[-5.0] * 3, [5.0] * 3], dtype=torch.float64))
    outer = trained(2)
    plain = MEMBERS["two columns"]()
    built = plain.to_botorch(N_DRAWS, seed=3, input_transform=inner, outcome_transform=outer)
    assert built.input_transform is inner
    assert built.outcome_transform is outer
    expected = outer.means + outer.stdvs * plain.to_botorch(N_DRAWS, seed=3)((NEW + 5) / 10)
    torch.testing.assert_close(built.posterior(NEW).values, expected)
    torch.testing.assert_close(outer.untransform(built.forward(inner(NEW)))[0], expected)
    built.train()
    assert not any(part.training for part in built.outcomes.modules())
    torch.testing.assert_close(built.eval().posterior(NEW).values, expected)
    subset = built.subset_output([1])
    torch.testing.assert_close(subset.posterior(NEW).values, expected[..., [1]])
    torch.testing.assert_close(built.posterior(NEW).values, expected)


def test_an_input_transform_may_add_rows(model):
    shifts = torch.tensor([[0.0] * 3, [0.1] * 3], dtype=torch.float64)
    built = shared_fit().to_botorch(N_DRAWS, 3, input_transform=InputPerturbation(shifts))
    expected = model.posterior((NEW[:, :, None] + shifts).flatten(1, 2)).values
    torch.testing.assert_close(built.posterior(NEW).values, expected)


def test_outputs_can_be_selected(of_two_outputs):
    model, values = of_two_outputs, of_two_outputs.posterior(NEW).values
    assert (model.num_outputs, model.batch_shape) == (2, torch.Size())
    assert torch.equal(model.posterior(NEW, output_indices=[1]).values, values[..., [1]])
    for idcs in ([0], [1], [1, 0], [-1]):
        subset = model.subset_output(idcs)
        assert isinstance(subset, type(model))
        assert subset.num_outputs == len(idcs)
        assert torch.equal(subset.posterior(NEW).values, values[..., idcs])
    assert torch.equal(model.subset_output([1, 0]).subset_output([1]).posterior(NEW).values,
                       values[..., [0]])  # fmt: skip
    with pytest.raises(IndexError, match="out of range"):
        model.subset_output([2])


def test_a_posterior_transform_applies_to_each_member(of_two_outputs):
    weights = torch.tensor([0.3, -2.0], dtype=torch.float64)
    transform = ScalarizedPosteriorTransform(weights, offset=1.0)
    found = of_two_outputs.posterior(NEW, posterior_transform=transform).values
    assert found.shape == (2, N_DRAWS, 5, 1)
    expected = 1 + of_two_outputs.posterior(NEW).values @ weights
    torch.testing.assert_close(found[..., 0], expected)


class Costly(PosteriorTransform):
    """A transform that uses the inputs."""

    scalarize = False

    def evaluate(self, Y, X=None):
        return Y - X.sum(-1, keepdim=True)

    def forward(self, posterior, X=None):
        raise NotImplementedError


def test_a_posterior_transform_receives_the_inputs_of_each_member(model):
    found = model.posterior(NEW, posterior_transform=Costly()).values
    expected = model.posterior(NEW).values - NEW.sum(-1)[:, None, :, None]
    torch.testing.assert_close(found, expected)


def test_models_can_be_listed_and_copied(model, of_two_outputs):
    both = ModelList(model, of_two_outputs)
    assert (both.num_outputs, both.batch_shape) == (3, torch.Size())
    posterior = both.posterior(NEW)
    assert isinstance(posterior, PosteriorList)
    expected = [m.posterior(NEW).mean for m in (model, of_two_outputs)]
    torch.testing.assert_close(posterior.mean, torch.cat(expected, -1))
    assert both.subset_output([1, 2]).num_outputs == 2
    copied = copy.deepcopy(model)
    assert torch.equal(copied.posterior(NEW).values, model.posterior(NEW).values)
    with pytest.raises(NotImplementedError, match="`condition_on_observations`: draws of weights"):
        model.condition_on_observations(NEW, NEW)
    with pytest.raises(NotImplementedError, match=r"`fantasize`: draws of .* fit\(\.\.\., start="):
        model.fantasize(NEW, None)


def test_nothing_of_the_fit_receives_gradients(model):
    assert isinstance(model, EnsembleModel)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.posterior(NEW).values.requires_grad


# Acquisition


@pytest.mark.filterwarnings("ignore:qExpectedImprovement has known numerical issues")
def test_expected_improvement_is_the_mean_over_the_draws():
    built = shared_fit().to_botorch(200, seed=3)
    values = built.posterior(NEW[:, :1]).values[..., 0, 0]
    best = values.median()
    improvement = (values - best).clamp(min=0)
    n = 4096
    acquisition = qExpectedImprovement(built, best, IndexSampler(torch.Size([n]), seed=0))
    error = improvement.std(1) / n**0.5
    assert bool(((acquisition(NEW[:, :1]) - improvement.mean(1)).abs() < 4 * error).all())


@pytest.mark.filterwarnings("ignore:qNoisyExpectedImprovement has known numerical issues")
@pytest.mark.filterwarnings("ignore:All acquisition values for raw sampled points are nonpositive")
@pytest.mark.parametrize(
    "acquisition",
    [
        lambda model: qLogExpectedImprovement(model, best_f=1.0),
        lambda model: qNoisyExpectedImprovement(model, torch.as_tensor(X)),
        lambda model: qLogNoisyExpectedImprovement(model, torch.as_tensor(X)),
    ],
)
@pytest.mark.parametrize("q", [1, 2])
def test_acquisition_functions_are_optimised_and_repeatable(model, acquisition, q):
    points, values = [], []
    for _ in range(2):
        torch.manual_seed(0)
        point, value = optimize_acqf(
            acquisition(model), CUBE, q=q, num_restarts=2, raw_samples=8, options={"maxiter": 10}
        )
        points.append(point)
        values.append(value)
    assert points[0].shape == (q, 3)
    assert torch.equal(*points)
    assert torch.equal(*values)
    random = torch.rand(20, q, 3, dtype=torch.float64) * 2 - 1
    assert float(values[0]) >= float(acquisition(model)(random).median())


def test_several_outputs_are_optimised_by_an_objective(of_two_outputs):
    objective = LinearMCObjective(torch.tensor([1.0, -1.0], dtype=torch.float64))
    acquisition = qLogExpectedImprovement(of_two_outputs, 0.0, objective=objective)
    point, value = optimize_acqf(acquisition, CUBE, q=1, num_restarts=2, raw_samples=8)
    assert point.shape == (1, 3)
    assert bool(value.isfinite())


def test_the_optimum_of_the_mean_is_that_of_a_grid():
    x = np.linspace(-1, 1, 30)[:, None]
    network = BayesianNetwork(mlp(1, [20], 1, "tanh", seed=0), likelihood=likelihoods.Gaussian(0.1))
    posterior = fit(network, x, -((x - 0.3) ** 2), epochs=300, seed=0, progress=False)
    bounds = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    model = posterior.to_botorch(20, seed=0)
    point, _ = optimize_acqf(PosteriorMean(model), bounds, q=1, num_restarts=3, raw_samples=16)
    grid = np.linspace(-1, 1, 2001)[:, None]
    best = grid[posterior.predict(grid, 20, seed=0).mean.argmax()]
    assert abs(float(point) - float(best[0])) < 2e-3


# Thompson sampling


def members_of(path_model, x, values):
    """Return the index of the member that each path is, by its values at x."""
    found = path_model(x)
    found = found.reshape(-1, *found.shape[-2:])
    return [int((values - path).abs().flatten(1).amax(1).argmin()) for path in found]


@pytest.mark.parametrize("name", ["gaussian", "chains", "two columns", "trunk"])
@pytest.mark.parametrize("sample_shape", [(), (4,), (2, 3)])
def test_a_path_is_a_member_of_the_ensemble(name, sample_shape):
    model = MEMBERS[name]().to_botorch(N_DRAWS, seed=3)
    values = model.posterior(NEW[0]).values
    paths = get_matheron_path_model(model, torch.Size(sample_shape))
    found = paths(NEW[0])
    assert found.shape == (*sample_shape, 5, model.num_outputs)
    index = members_of(paths, NEW[0], values)
    assert len(set(index)) == len(index) == int(np.prod(sample_shape))
    torch.testing.assert_close(found.reshape(-1, *found.shape[-2:]), values[index])
    if len(sample_shape) == 1:  # each path at rows of its own, in batches
        x = torch.as_tensor(RNG.normal(size=(3, 4, 2, 3)))
        at_own = paths(x)
        assert at_own.shape == (3, 4, 2, model.num_outputs)
        for j, i in enumerate(index):
            torch.testing.assert_close(at_own[:, j], model.posterior(x[:, j]).values[:, i])


def test_paths_undo_the_transforms():
    options = {
        "input_transform": Normalize(3, bounds=CUBE * 4),
        "outcome_transform": trained(2),
    }
    model = MEMBERS["two columns"]().to_botorch(N_DRAWS, seed=3, **options)
    paths = get_matheron_path_model(model, torch.Size([N_DRAWS]))
    values = model.posterior(NEW[0]).values
    torch.testing.assert_close(paths(NEW[0]), values[members_of(paths, NEW[0], values)])


def test_thompson_sampling_by_botorch_maximises_different_paths(model):
    torch.manual_seed(0)
    acquisition = PathwiseThompsonSampling(model)
    points, _ = optimize_acqf(acquisition, CUBE, q=3, num_restarts=2, raw_samples=16)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 0, 1], dtype=torch.float64)] * 3)
    at_corners = acquisition.samples(corners)[..., 0]
    at_points = acquisition.samples(points[:, None])[:, 0, 0]
    assert bool((at_points >= at_corners.amax(1) - 0.05).all())
    best, values = optimize_posterior_samples(acquisition.samples, CUBE, 64, 3)
    assert best.shape == (3, 3)
    torch.testing.assert_close(values[:, 0], at_points, rtol=0.02, atol=0.05)
    chosen = MaxPosteriorSampling(model, replacement=False)(corners, num_samples=3)
    assert len(torch.unique(chosen, dim=0)) == 3


def test_more_paths_than_draws_are_refused(model):
    with pytest.raises(ValueError, match=r"has 7 paths, but the model has 6 draws .*n_draws=7"):
        get_matheron_path_model(model, torch.Size([7]))


# Estimators


@pytest.mark.parametrize(
    ("likelihood", "n_targets"),
    [("gaussian", 1), ("gaussian", 2), ("heteroscedastic", 1), ("lognormal", 1), ("poisson", 1)],
)
def test_an_estimator_predicts_in_the_units_of_x_and_y(likelihood, n_targets):
    x = RNG.normal(size=(40, 3)) * [1, 30, 1e-3] + [2000, 0, 5]
    y = np.exp(2 + (x[:, :1] - 2000) / 3 + 0.1 * RNG.normal(size=(40, n_targets)))
    y = np.round(y) if likelihood == "poisson" else y
    y = y if n_targets > 1 else y[:, 0]
    options = QUICK_ESTIMATOR | {"epochs": 5, "restarts": 2}
    estimator = BBBRegressor([4], likelihood=likelihood, **options).fit(x, y)
    far = np.vstack([x, x[:4] + 9 * (x[:4] - x.mean(0))])  # where tails are compressed
    found = estimator.to_botorch().posterior(torch.as_tensor(far))
    prediction = estimator.predict_distribution(far)
    assert found.values.shape == (50, 44, n_targets)
    shape = found.mean.shape
    np.testing.assert_allclose(found.mean, np.reshape(prediction.mean, shape), rtol=1e-5)
    sd = np.reshape(prediction.epistemic_sd, shape) * (50 / 49) ** 0.5
    np.testing.assert_allclose(found.variance.sqrt(), sd, rtol=1e-3)
    noisy = estimator.to_botorch(2000).posterior(torch.as_tensor(x[:3]), observation_noise=True)
    total = np.reshape(
        estimator.set_params(n_draws=2000).predict(x[:3], return_std=True)[1], (3, -1)
    )
    np.testing.assert_allclose(noisy.variance.sqrt(), total, rtol=0.15)
    row = torch.as_tensor(far[:1]).requires_grad_()
    estimator.to_botorch(3).posterior(row).mean.sum().backward()
    assert bool((row.grad != 0).any())


# Refusals


class Shuffled(nn.Module):
    """A module that draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x + 0.01 * torch.randn_like(x))


class Centred(nn.Module):
    """A module whose rows interact."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x - x.mean(0))


REFUSED = {
    "classes": (
        lambda: quick_fit(small_network(3, likelihood=likelihoods.Categorical()), X, X[:, 0] > 0),
        "needs the mean of y given the weights, which the likelihood Categorical does not have",
    ),
    "heavy tails": (
        lambda: quick_fit(small_network(likelihood=lambda output: dist.Cauchy(output, 1.0))),
        "needs the mean of y given the weights, which the likelihood function does not have",
    ),
    "images": (
        lambda: quick_fit(
            BayesianNetwork(nn.Sequential(nn.Flatten(), nn.Linear(3, 1)).double()), X[:, :, None]
        ),
        r"needs a network whose x is one array .* got rows of shape \(3, 1\)",
    ),
    "random numbers": (
        lambda: quick_fit(BayesianNetwork(Shuffled().double())),
        r"needs a deterministic network, but `net` \(Shuffled\) draws random numbers",
    ),
    "interacting rows": (
        lambda: quick_fit(BayesianNetwork(Centred().double()), batch_size=23),
        r"rows do not interact: the output of `net` \(Centred\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_posterior_that_has_no_such_model_is_refused(name):
    posterior, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        to_botorch(posterior())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outcome_transform": Standardize(m=1)}, r"`outcome_transform` \(Standardize\) cannot be"),
        ({"outcome_transform": trained(2)}, r"for 1 output\(s\): it is for another number"),
        ({"input_transform": Normalize(d=3)}, r"`input_transform` \(Normalize\) has not been"),
    ],
)
def test_a_transform_that_cannot_be_used_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shared_fit().to_botorch(**options)


@pytest.mark.parametrize("name", ["input_transform", "outcome_transform"])
def test_a_transform_of_another_kind_is_refused(name):
    with pytest.raises(TypeError, match=f"`{name}` must be an .*Transform of BoTorch, got 'log'"):
        shared_fit().to_botorch(**{name: "log"})


def test_without_botorch_the_extra_is_named(monkeypatch):
    for module in ("model", "paths"):
        monkeypatch.delitem(sys.modules, f"pyrobbb.surrogates.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "botorch.models.ensemble", None)
    with pytest.raises(ImportError, match=r'pip install "pyrobbb\[botorch\]"'):
        shared_fit().to_botorch()
