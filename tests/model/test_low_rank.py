"""LowRankGuide: its distribution, Pyro's guide of the same family, exact posteriors, refusals."""

import math

import pyro
import pyro.poutine as poutine
import pytest
import scipy.stats
import torch
from modules import network_and_data
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal

from pyrobbb import BayesianNetwork, FusedELBO, LowRankGuide, MeanFieldGuide, fit, mlp
from pyrobbb.likelihoods import Gaussian
from pyrobbb.priors import Laplace, Normal, ScaleMixture


def moved(guide):
    """Return a guide away from its initial values."""
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return guide


def covariance_of(guide):
    scale = torch.nn.functional.softplus(guide.rho)
    factor = guide.cov_factor
    return scale[:, None] * (factor @ factor.T + torch.eye(len(scale))) * scale


def pyros(network, guide, x, y):
    """Return Pyro's guide with the parameters of a guide of ours, and these parameters."""
    auto = AutoLowRankMultivariateNormal(poutine.block(network, hide=["y"]), rank=guide.rank)
    auto(x, y)
    with torch.no_grad():
        auto.loc.copy_(guide.loc)
        auto.scale = guide.scale.detach()
        auto.cov_factor.copy_(guide.cov_factor)
    return auto, [auto.loc, auto.scale_unconstrained, auto.cov_factor]


@pytest.mark.parametrize("rank", [1, 4, 22])
@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize("prior", [Normal(), ScaleMixture(), Laplace()], ids=str)
@pytest.mark.parametrize("likelihood", [Gaussian(), Gaussian(0.3)], ids=str)
def test_loss_and_gradients_are_those_of_pyros_guide(rank, n_particles, prior, likelihood):
    network, x, y = network_and_data(likelihood, prior)
    guide = LowRankGuide(network, min(rank, sum(p.numel() for p in network.net.parameters())))
    moved(guide)
    pyros_elbo = Trace_ELBO(
        num_particles=n_particles, vectorize_particles=n_particles > 1, max_plate_nesting=1
    )
    with pyro.settings.context(module_local_params=True):
        auto, its_parameters = pyros(network, guide, x, y)
        mine = list(guide.parameters())
        results = []
        for elbo, one, parameters in (
            (pyros_elbo, auto, its_parameters),
            (pyros_elbo, guide, mine),
            (FusedELBO("trace", n_particles), guide, mine),
            (FusedELBO("mean_field", n_particles), guide, mine),
        ):
            pyro.set_rng_seed(7)
            loss = elbo.differentiable_loss(network, one, x, y)
            results.append((loss.detach(), torch.autograd.grad(loss, parameters)))
    for loss, gradients in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-11, atol=0)
        torch.testing.assert_close(gradients, results[0][1], rtol=1e-10, atol=1e-10)


def test_the_mean_field_objective_samples_log_q_and_counts_the_noise_scale():
    """Pyro's own guide loses the Jacobian of the noise scale under this objective."""
    network, x, y = network_and_data(Gaussian())
    guide = moved(LowRankGuide(network, 3))
    losses = []
    for elbo in (Trace_ELBO(), TraceMeanField_ELBO()):
        pyro.set_rng_seed(7)
        losses.append(elbo.loss(network, guide, x, y))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_density_of_a_trace_is_that_of_the_joint_normal(dtype):
    network, x, _ = network_and_data(Gaussian())
    network.to(dtype)
    guide = moved(LowRankGuide(network, 3))
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(x.to(dtype))
        u = [trace.nodes[name]["value"].double().flatten() for name in guide.shapes]
        log_jacobian = -u[-1].log().sum()
        u[-1] = u[-1].log()
        joint = scipy.stats.multivariate_normal(
            guide.loc.double().numpy(), covariance_of(guide).double().numpy()
        )
        expected = joint.logpdf(torch.cat(u).numpy()) + log_jacobian.item()
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        assert trace.log_prob_sum().item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_without_pyro_are_those_of_a_trace(dtype):
    network, x, _ = network_and_data(Gaussian(noise_median=(0.2, 3.0)), n_out=2)
    guide = moved(LowRankGuide(network.to(dtype), 3))
    with torch.no_grad(), pyro.plate("draws", 16, dim=-2):
        torch.manual_seed(5)
        expected = guide(x)
    with torch.no_grad():
        draws = guide.sampler()(16, torch.Generator().manual_seed(5))
    assert draws.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(draws[name], value[:, 0])


def test_the_standard_deviations_are_those_of_the_covariance():
    network, *_ = network_and_data()
    guide = moved(LowRankGuide(network, 5))
    torch.testing.assert_close(guide.sd, covariance_of(guide).diagonal().sqrt())


def test_draws_have_the_covariance():
    network, *_ = network_and_data(Gaussian(0.1))
    guide = moved(LowRankGuide(network, 2, init_scale=1.0))
    n = 20_000
    with torch.no_grad():
        draws = guide.sampler()(n, torch.Generator().manual_seed(0))
    flat = torch.cat([value.reshape(n, -1) for value in draws.values()], 1)
    expected = covariance_of(guide).detach()
    sd = expected.diagonal().sqrt()
    # A sample covariance has the variance (s_ii s_jj + s_ij^2) / n.
    error = ((sd[:, None] * sd).square() + expected.square()).sqrt() / math.sqrt(n)
    assert ((flat.T.cov() - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("n_hidden", [2, 4, 9])
def test_the_default_rank_is_pyros(n_hidden):
    network = BayesianNetwork(mlp(3, [n_hidden], 1).double())
    x = torch.randn(5, 3, dtype=torch.float64)
    with pyro.settings.context(module_local_params=True):
        auto = AutoLowRankMultivariateNormal(poutine.block(network, hide=["y"]))
        auto(x)
    assert LowRankGuide(network).rank == auto.rank


def test_the_initial_factor_leaves_the_random_state_and_is_repeatable():
    network, *_ = network_and_data()
    before = torch.random.get_rng_state()
    one, other = LowRankGuide(network, 3), LowRankGuide(network, rank=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.cov_factor, other.cov_factor)


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (0, ValueError, "`rank` must be at least 1, got 0: that is a MeanFieldGuide"),
        (-1, ValueError, "`rank` must be at least 1, got -1"),
        (1.5, TypeError, "`rank` must be a whole number, got 1.5"),
        ("3", TypeError, "`rank` must be a whole number, got '3'"),
        (27, ValueError, "`rank` must be at most 22, the number of latent values, got 27"),
    ],
)
def test_a_rank_that_is_no_rank_is_refused(rank, error, message):
    network, *_ = network_and_data(Gaussian())
    assert len(MeanFieldGuide(network).loc) == 22
    with pytest.raises(error, match=message):
        LowRankGuide(network, rank)


def test_a_network_in_bfloat16_is_refused():
    network, *_ = network_and_data()
    with pytest.raises(ValueError, match=r"float32 or float64 .*, got torch.bfloat16"):
        LowRankGuide(network.to(torch.bfloat16))


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_draws_that_differ_between_rows_need_a_mean_field_guide(estimator):
    network, x, y = network_and_data()
    message = f"`estimator` '{estimator}': the guide must be a MeanFieldGuide for draws"
    with pytest.raises(ValueError, match=message):
        fit(network, x, y, guide="low_rank", estimator=estimator, progress=False)


class Correlated:
    """Linear regression on two nearly equal inputs, with its exact posterior."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        first = torch.randn(40, 1, dtype=torch.float64, generator=generator)
        other = 0.9 * first + 0.3 * torch.randn(40, 1, dtype=torch.float64, generator=generator)
        self.x = torch.cat([first, other], 1)
        self.y = self.x.sum(1, keepdim=True)
        self.y = self.y + 0.5 * torch.randn(40, 1, dtype=torch.float64, generator=generator)
        self.network = BayesianNetwork(mlp(2, [], 1, seed=0).double(), Normal(1.0), Gaussian(0.5))
        design = torch.cat([self.x, torch.ones_like(self.y)], 1)
        self.precision = design.T @ design / 0.25 + torch.eye(3)
        self.covariance = torch.linalg.inv(self.precision)
        self.mean = (self.covariance @ design.T @ self.y / 0.25).flatten()

    def fit(self, guide):
        options = {"epochs": 2500, "n_particles": 32, "engine": "fused", "lr": 0.1}
        return fit(
            self.network, self.x, self.y, guide=guide, seed=0, progress=False, **options
        ).guide


def test_a_full_rank_guide_recovers_the_exact_posterior_of_correlated_inputs():
    exact = Correlated()
    correlation = exact.covariance[0, 1] / exact.covariance.diagonal()[:2].prod().sqrt()
    assert correlation < -0.9
    guide = exact.fit(LowRankGuide(exact.network, 3))
    sd = exact.covariance.diagonal().sqrt()
    assert ((guide.loc - exact.mean).abs() < 0.05 * sd).all()
    error = (covariance_of(guide) - exact.covariance) / (sd[:, None] * sd)
    assert error.abs().max() < 0.06
    # A mean-field guide has the variances 1 / precision instead: here a tenth of the exact ones.
    mean_field = exact.fit("mean_field")
    torch.testing.assert_close(
        mean_field.sd.detach(), exact.precision.diagonal() ** -0.5, rtol=0.06, atol=0
    )
    assert (mean_field.sd[:2] < 0.45 * sd[:2]).all()
