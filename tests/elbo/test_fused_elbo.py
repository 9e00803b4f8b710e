"""FusedELBO against Pyro's ELBOs: any module, SVI, torch optimisers, and its errors."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from modules import ByRow, batch_norm, learned
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, mlp
from pyrobbb.elbo.fused_elbo import FusedELBO
from pyrobbb.elbo.fused_loss import CannotFuseError
from pyrobbb.elbo.objectives import traced
from pyrobbb.likelihoods import Gaussian
from pyrobbb.priors import ByName, Normal


def loss_and_gradients(elbo, network, guide, *args):
    pyro.set_rng_seed(7)
    loss = elbo.differentiable_loss(network, guide, *args)
    return loss.detach(), torch.autograd.grad(loss, learned(network, guide))


# Any module


@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize("objective", ["trace", "mean_field"])
def test_the_loss_and_gradients_of_any_module_equal_those_of_pyro(case, objective, n_particles):
    network, x, y = case
    guide = MeanFieldGuide(network)
    fused = FusedELBO(objective, n_particles)
    expected = loss_and_gradients(traced(fused), network, guide, x, y, 40)
    value, gradients = loss_and_gradients(fused, network, guide, x, y, 40)
    torch.testing.assert_close(value, expected[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients, expected[1], rtol=1e-9, atol=1e-10)
    assert all((gradient != 0).any() for gradient in gradients)


def test_each_draw_passes_through_batch_norm_once():
    network = BayesianNetwork(batch_norm().double(), ByName({"1.*": None}))
    x, y = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    guide = MeanFieldGuide(network)
    FusedELBO().loss(network, guide, x, y)
    assert network.net[1].num_batches_tracked == 1
    FusedELBO(num_particles=3).loss(network, guide, x, y)
    assert network.net[1].num_batches_tracked == 4


def test_a_call_restores_the_parameters_of_the_module_even_if_it_fails(regression):
    network, x, y = regression
    before = dict(network.net.named_parameters())
    FusedELBO().loss(network, MeanFieldGuide(network), x, y)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        FusedELBO().loss(network, MeanFieldGuide(network), x[:, :2], y)
    after = dict(network.net.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())


# In SVI and in torch training loops


@pytest.mark.parametrize("objective", ["trace", "mean_field"])
def test_svi_takes_the_same_steps_as_with_the_elbo_of_pyro(regression, objective):
    network, x, y = regression
    runs = []
    for elbo in (FusedELBO(objective), traced(FusedELBO(objective))):
        guide = MeanFieldGuide(network)
        svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
        pyro.set_rng_seed(3)
        losses = [svi.step(x, y) for _ in range(5)]
        runs.append((losses, svi.evaluate_loss(x, y), guide.loc.detach(), guide.rho.detach()))
    fused, expected = runs
    assert fused[0] == pytest.approx(expected[0], rel=1e-10)
    assert fused[1] == pytest.approx(expected[1], rel=1e-10)
    torch.testing.assert_close(fused[2:], expected[2:], rtol=1e-9, atol=1e-11)
    assert len(pyro.get_param_store()) == 0


def test_called_on_network_and_guide_it_is_a_module_for_any_torch_optimiser():
    network = BayesianNetwork(mlp(3, [4], 1, seed=0).double(), ByName({"2.*": None}))
    x = torch.randn(9, 3, dtype=torch.float64)
    y = x.sum(1, keepdim=True)
    runs = []
    for elbo in (FusedELBO(), Trace_ELBO()):
        guide = MeanFieldGuide(network)
        loss = elbo(network, guide)
        assert isinstance(loss, nn.Module)
        optimizer = torch.optim.SGD(guide.parameters(), lr=1e-4, momentum=0.5)
        pyro.set_rng_seed(3)
        for _ in range(4):
            optimizer.zero_grad()
            (0.5 * loss(x, y)).backward()
            optimizer.step()
        runs.append((guide.loc.detach(), guide.rho.detach()))
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-10, atol=0)
    assert not torch.equal(runs[0][0], MeanFieldGuide(network).loc)


def test_gradients_accumulate_as_those_of_pyro_do(regression):
    network, x, y = regression
    guide = MeanFieldGuide(network)
    elbo = FusedELBO()
    _, (d_loc, *_) = loss_and_gradients(elbo, network, guide, x, y)
    for _ in range(2):
        pyro.set_rng_seed(7)
        loss = elbo.loss_and_grads(network, guide, x, y)
    pyro.set_rng_seed(7)
    assert loss == pytest.approx(Trace_ELBO().loss(network, guide, x, y), rel=1e-12)
    torch.testing.assert_close(guide.loc.grad, 2 * d_loc, rtol=1e-12, atol=0)


def test_one_elbo_works_for_several_networks_and_after_a_network_changes(regression):
    network, x, y = regression
    other = BayesianNetwork(mlp(3, [5], 1, seed=1).double(), Normal(0.3), Gaussian())
    elbo = FusedELBO()
    guides = {network: MeanFieldGuide(network), other: MeanFieldGuide(other)}

    def check(net):
        value, _ = loss_and_gradients(elbo, net, guides[net], x, y)
        expected, _ = loss_and_gradients(Trace_ELBO(), net, guides[net], x, y)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)

    check(network)
    check(other)
    made = elbo._fuse(other, guides[other])
    assert elbo._fuse(other, guides[other]) is made  # built once, not at each step
    other.prior = Normal(3.0)
    check(other)
    other.likelihood = Gaussian(noise_median=5.0)  # the prior of its latent site
    check(other)
    in_double = elbo._fuse(other, guides[other])
    assert in_double is not made
    other.float()
    guides[other].float()
    assert elbo._fuse(other, guides[other]) is not in_double
    assert elbo.differentiable_loss(other, guides[other], x.float(), y.float()).isfinite()


# Errors


def test_invalid_objectives_and_counts_raise():
    with pytest.raises(ValueError, match="`objective` must be 'trace' or 'mean_field', got 'elbo'"):
        FusedELBO("elbo")
    with pytest.raises(ValueError, match="`num_particles` must be at least 1, got 0"):
        FusedELBO(num_particles=0)


def test_the_model_must_be_a_bayesian_network(regression):
    network, x, y = regression

    def model(x, y=None):
        return pyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)

    class Custom(BayesianNetwork):
        def forward(self, x, y=None, n_data=None):
            pyro.factor("more", -self.net[0].weight.sum())
            return super().forward(x, y, n_data)

    with pytest.raises(CannotFuseError, match="the model must be a BayesianNetwork, got function"):
        FusedELBO().loss(model, MeanFieldGuide(network), x, y)
    custom = Custom(mlp(3, [4], 1).double())
    with pytest.raises(CannotFuseError, match="the model must be a BayesianNetwork, got Custom"):
        FusedELBO().loss(custom, MeanFieldGuide(custom), x, y)


def test_the_guide_must_be_a_mean_field_guide_of_the_network(regression):
    network, x, y = regression

    class Custom(MeanFieldGuide):
        def forward(self, *args, **kwargs):
            return {}

    with pytest.raises(
        CannotFuseError, match="the guide must be a MeanFieldGuide or LowRankGuide, got AutoNormal"
    ):
        FusedELBO().loss(network, AutoNormal(network), x, y)
    with pytest.raises(
        CannotFuseError, match="the guide must be a MeanFieldGuide or LowRankGuide, got Custom"
    ):
        FusedELBO().loss(network, Custom(network), x, y)


@pytest.mark.parametrize(
    ("sizes", "likelihood", "message"),
    [
        ([5], None, r"'0\.weight' has the shape \(4, 3\), in the guide the shape \(5, 3\)"),
        ([4, 4], None, r"'2\.weight' has the shape \(1, 4\), in the guide the shape \(4, 4\)"),
        ([], None, r"'0\.weight' has the shape \(4, 3\), in the guide the shape \(1, 3\)"),
        ([4], Gaussian(0.5), r"'noise_scale' has the shape \(\), in the guide no such site"),
    ],
)
def test_the_guide_of_another_network_raises_with_its_sizes(regression, sizes, likelihood, message):
    network, x, y = regression
    guide = MeanFieldGuide(BayesianNetwork(mlp(3, sizes, 1).double(), None, likelihood))
    with pytest.raises(ValueError, match=f"`guide` was made for another network: .*{message}"):
        SVI(network, guide, pyro.optim.Adam({}), FusedELBO()).step(x, y)


@pytest.mark.parametrize("engine", ["auto", "fused", "svi"])
@pytest.mark.parametrize(
    "make", [MeanFieldGuide, lambda n: AutoNormal(poutine.block(n, hide=["y"]))]
)
def test_a_fit_with_the_guide_of_another_network_raises_with_its_sizes(regression, make, engine):
    network, x, y = regression
    guide = make(BayesianNetwork(mlp(3, [5], 1).double()))
    with pytest.raises(ValueError, match=r"'0\.weight' of shape \(5, 3\), .* shape \(4, 3\)"):
        fit(network, x, y, guide=guide, epochs=1, engine=engine, progress=False)


def test_latent_sites_that_the_likelihood_does_not_list_raise(regression):
    _, x, y = regression

    def likelihood(output):
        return dist.Normal(output, pyro.sample("spread", dist.LogNormal(0.0, 1.0)))

    network = BayesianNetwork(mlp(3, [4], 1).double(), None, likelihood)
    with pytest.raises(CannotFuseError, match="latent sites that it does not list in `latents`"):
        FusedELBO().loss(network, MeanFieldGuide(network, x), x, y)


@pytest.mark.parametrize(
    "learned_prior",
    [
        lambda s: dist.Normal(0.0, s),
        lambda s: dist.Laplace(s, 1.0),
        lambda s: dist.TransformedDistribution(
            dist.Normal(0.0, s), [dist.transforms.AffineTransform(1.0, 2.0)]
        ),
    ],
)
def test_a_prior_with_learned_parameters_raises(regression, learned_prior):
    _, x, y = regression
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def prior(name, parameter):
        return learned_prior(scale[0]).expand(parameter.shape).to_event(parameter.dim())

    network = BayesianNetwork(mlp(3, [4], 1).double(), prior)
    with pytest.raises(CannotFuseError, match="the prior has learned parameters"):
        FusedELBO().loss(network, MeanFieldGuide(network), x, y)


def test_handlers_that_would_have_no_effect_raise_and_others_do_not(regression):
    network, x, y = regression
    guide = MeanFieldGuide(network)
    expected, _ = loss_and_gradients(FusedELBO(), network, guide, x, y)
    with poutine.block(), poutine.trace(param_only=True) as tracer:
        value, _ = loss_and_gradients(FusedELBO(), network, guide, x, y)
    assert value == expected
    assert {"guide.loc", "guide.rho"} <= set(tracer.trace.nodes)
    for handler in (poutine.scale(scale=2.0), poutine.condition(data={}), pyro.plate("p", 2)):
        with handler, pytest.raises(CannotFuseError, match="is active, which has no effect"):
            FusedELBO().loss(network, guide, x, y)


@pytest.mark.parametrize("n_particles", [1, 2])
def test_observations_of_another_shape_raise_instead_of_broadcasting(regression, n_particles):
    network, x, y = regression
    elbo = FusedELBO(num_particles=n_particles)
    with pytest.raises(ValueError, match=r"`y` has shape \(9,\), but .*\(9, 1\)\. Pass y\.reshape"):
        elbo.loss(network, MeanFieldGuide(network), x, y[:, 0])
    custom = BayesianNetwork(ByRow().double(), None, lambda output: dist.Normal(output, 1.0))
    with pytest.raises(
        ValueError, match=r"`y` has shape \(9, 1\), but .*\(9,\)\. Pass y\[\.\.\., 0"
    ):
        elbo.loss(custom, MeanFieldGuide(custom), x, y)


def test_n_data_must_be_an_integer_of_at_least_the_number_of_rows(regression):
    network, x, y = regression
    with pytest.raises(ValueError, match=r"`n_data` .* at least the 9 rows of x, got 8"):
        FusedELBO().loss(network, MeanFieldGuide(network), x, y, 8)
    with pytest.raises(TypeError, match=r"`n_data` must be a whole number, got 9\.5"):
        FusedELBO().loss(network, MeanFieldGuide(network), x, y, 9.5)
