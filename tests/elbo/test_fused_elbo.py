"""The fused loss against Pyro's ELBOs: any module, extremes, rows, chains, and what it refuses."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from modules import LastState, Tied
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from pyrobbb import BayesianNetwork, MeanFieldGuide, mlp
from pyrobbb.elbo.fused_elbo import CannotFuseError, FusedELBO, FusedLoss
from pyrobbb.elbo.objectives import traced
from pyrobbb.likelihoods import Categorical, Gaussian, Poisson
from pyrobbb.model.guides import inverse_softplus
from pyrobbb.priors import ByName, FanInNormal, Normal, ScaleMixture, ScaleMixtureNormal


class ByRow(nn.Module):
    """Gives one number a row, shape (n,)."""

    def __init__(self):
        super().__init__()
        self.net = mlp(3, [4], 1, "tanh")

    def forward(self, x):
        return self.net(x)[:, 0]


def batch_norm():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def half_frozen():
    net = mlp(3, [4, 4], 2, "tanh")
    net[2].requires_grad_(False)
    return net


def embedding_bag():
    return nn.Sequential(nn.EmbeddingBag(7, 3), nn.Linear(3, 3))


class OwnLikelihood:
    """A callable, no class of pyrobbb's, that lists its latent site."""

    latents = {"spread": dist.Gamma(torch.tensor(2.0).double(), torch.tensor(3.0).double())}  # noqa: RUF012

    def __call__(self, output):
        return dist.Laplace(output, pyro.sample("spread", self.latents["spread"]))


# A module, its prior, its likelihood, and the shape of a row of x; None: five tokens.
ZOO = {
    "points by name": (lambda: mlp(3, [4], 2), ByName({"*.bias": None}), Gaussian(), (3,)),
    "batch norm, points": (batch_norm, ByName({"1.*": None}), Gaussian(), (3,)),
    "tied weights": (Tied, Normal(0.7), Gaussian(0.2), (3,)),
    "LSTM": (LastState, None, Gaussian(), (6, 2)),
    "LSTM, points": (LastState, ByName({"lstm.*": None}), Gaussian(), (6, 2)),
    "embedding": (embedding_bag, None, Categorical(), None),
    "frozen layer": (half_frozen, FanInNormal(), Poisson(), (3,)),
    "weight norm": (lambda: weight_norm(nn.Linear(3, 2)), None, Gaussian(), (3,)),
    "an output without units": (ByRow, None, Gaussian(0.3), (3,)),
    "a likelihood of one's own": (lambda: mlp(3, [4], 2), Normal(), OwnLikelihood(), (3,)),
}


@pytest.fixture(params=ZOO)
def case(request):
    make, prior, likelihood, row = ZOO[request.param]
    network = BayesianNetwork(make().double(), prior, likelihood)
    x = torch.randint(7, (5, 5)) if row is None else torch.randn(5, *row, dtype=torch.float64)
    with torch.no_grad():
        output = network.net.eval()(x)
    network.net.train()
    if isinstance(likelihood, Categorical):
        return network, x, output.argmax(-1)
    return network, x, torch.randint_like(output, 4)


@pytest.fixture
def regression():
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0).double())
    x = torch.randn(9, 3, dtype=torch.float64)
    return network, x, x.sum(1, keepdim=True)


def learnt(network, guide):
    return [guide.loc, guide.rho, *(point for _, point in network.point_parameters())]


def loss_and_gradients(elbo, network, guide, *args):
    pyro.set_rng_seed(7)
    loss = elbo.differentiable_loss(network, guide, *args)
    return loss.detach(), torch.autograd.grad(loss, learnt(network, guide))


# Any module


@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize("objective", ["trace", "mean_field"])
def test_the_loss_and_gradients_of_any_module_are_pyros(case, objective, n_particles):
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


def test_the_module_holds_its_own_parameters_after_a_call_even_one_that_fails(regression):
    network, x, y = regression
    before = dict(network.net.named_parameters())
    FusedELBO().loss(network, MeanFieldGuide(network), x, y)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        FusedELBO().loss(network, MeanFieldGuide(network), x[:, :2], y)
    after = dict(network.net.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())


# In Pyro's SVI, and in torch's training loops


@pytest.mark.parametrize("objective", ["trace", "mean_field"])
def test_svi_with_it_takes_the_steps_that_it_takes_with_pyros_elbo(regression, objective):
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


def test_gradients_add_up_as_those_of_pyro_do(regression):
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


def test_one_elbo_may_serve_several_networks_and_a_changed_one(regression):
    network, x, y = regression
    other = BayesianNetwork(mlp(3, [5], 1, seed=1).double(), Normal(0.3), Gaussian())
    elbo = FusedELBO()
    guides = {network: MeanFieldGuide(network), other: MeanFieldGuide(other)}

    def check(own):
        value, _ = loss_and_gradients(elbo, own, guides[own], x, y)
        expected, _ = loss_and_gradients(Trace_ELBO(), own, guides[own], x, y)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)

    check(network)
    check(other)
    made = elbo._fuse(other, guides[other])
    assert elbo._fuse(other, guides[other]) is made  # looked up once, not at each step
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


# Refusals


def test_other_objectives_and_counts_are_refused():
    with pytest.raises(ValueError, match="`objective` must be 'trace' or 'mean_field', got 'elbo'"):
        FusedELBO("elbo")
    with pytest.raises(ValueError, match="`num_particles` must be at least 1, got 0"):
        FusedELBO(num_particles=0)


def test_a_model_that_is_no_bayesian_network_is_refused(regression):
    network, x, y = regression

    def model(x, y=None):
        return pyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)

    class Own(BayesianNetwork):
        def forward(self, x, y=None, n_data=None):
            pyro.factor("more", -self.net[0].weight.sum())
            return super().forward(x, y, n_data)

    with pytest.raises(CannotFuseError, match="the model is a function, no BayesianNetwork"):
        FusedELBO().loss(model, MeanFieldGuide(network), x, y)
    own = Own(mlp(3, [4], 1).double())
    with pytest.raises(CannotFuseError, match="the model is a Own, no BayesianNetwork"):
        FusedELBO().loss(own, MeanFieldGuide(own), x, y)


def test_another_guide_is_refused(regression):
    network, x, y = regression

    class Own(MeanFieldGuide):
        def forward(self, *args, **kwargs):
            return {}

    with pytest.raises(CannotFuseError, match="the guide is a AutoNormal, no MeanFieldGuide"):
        FusedELBO().loss(network, AutoNormal(network), x, y)
    with pytest.raises(CannotFuseError, match="the guide is a Own, no MeanFieldGuide"):
        FusedELBO().loss(network, Own(network), x, y)
    stranger = MeanFieldGuide(BayesianNetwork(mlp(3, [4, 4], 1).double()))
    with pytest.raises(CannotFuseError, match="the guide was made for another network"):
        FusedELBO().loss(network, stranger, x, y)


def test_latent_sites_that_the_likelihood_does_not_list_are_refused(regression):
    _, x, y = regression

    def likelihood(output):
        return dist.Normal(output, pyro.sample("spread", dist.LogNormal(0.0, 1.0)))

    network = BayesianNetwork(mlp(3, [4], 1).double(), None, likelihood)
    with pytest.raises(CannotFuseError, match="latent sites that it does not list as `latents`"):
        FusedELBO().loss(network, MeanFieldGuide(network, x), x, y)


@pytest.mark.parametrize(
    "learnt_prior",
    [
        lambda s: dist.Normal(0.0, s),
        lambda s: dist.Laplace(s, 1.0),
        lambda s: dist.TransformedDistribution(
            dist.Normal(0.0, s), [dist.transforms.AffineTransform(1.0, 2.0)]
        ),
    ],
)
def test_a_prior_with_parameters_to_learn_is_refused(regression, learnt_prior):
    _, x, y = regression
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def prior(name, parameter):
        return learnt_prior(scale[0]).expand(parameter.shape).to_event(parameter.dim())

    network = BayesianNetwork(mlp(3, [4], 1).double(), prior)
    with pytest.raises(CannotFuseError, match="the prior has parameters that are learnt"):
        FusedELBO().loss(network, MeanFieldGuide(network), x, y)


def test_handlers_that_would_have_no_effect_are_refused_and_others_let_pass(regression):
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
def test_observations_of_another_shape_are_refused_rather_than_broadcast(regression, n_particles):
    network, x, y = regression
    elbo = FusedELBO(num_particles=n_particles)
    with pytest.raises(ValueError, match=r"`y` has shape \(9,\), but .*\(9, 1\)\. Pass y\.reshape"):
        elbo.loss(network, MeanFieldGuide(network), x, y[:, 0])
    own = BayesianNetwork(ByRow().double(), None, lambda output: dist.Normal(output, 1.0))
    with pytest.raises(
        ValueError, match=r"`y` has shape \(9, 1\), but .*\(9,\)\. Pass y\[\.\.\., 0"
    ):
        elbo.loss(own, MeanFieldGuide(own), x, y)


def test_n_data_must_be_a_count_of_at_least_the_rows(regression):
    network, x, y = regression
    with pytest.raises(ValueError, match=r"`n_data` .* at least the 9 rows of x, got 8"):
        FusedELBO().loss(network, MeanFieldGuide(network), x, y, 8)
    with pytest.raises(TypeError, match=r"`n_data` must be a whole number, got 9\.0"):
        FusedELBO().loss(network, MeanFieldGuide(network), x, y, 9.0)


# Extremes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rho", [-100.0, 100.0])
@pytest.mark.parametrize("prior", [ScaleMixture(0.5, 1.0, 0.0025), Normal(0.0025)], ids=str)
def test_loss_and_gradients_stay_finite_at_the_extremes(dtype, rho, prior):
    """Trap 4: weights 50 scales out, and standard deviations of 1e-15 and 100."""
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0).to(dtype), prior, Gaussian(1.0))
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.fill_(50.0)
        guide.rho.fill_(rho)
    x = torch.randn(5, 3).to(dtype)
    for objective in ("trace", "mean_field"):
        for n_particles in (1, 2):
            loss, gradients = loss_and_gradients(
                FusedELBO(objective, n_particles), network, guide, x, x[:, :1]
            )
            assert loss.dtype == dtype
            assert loss.isfinite()
            assert all(gradient.isfinite().all() for gradient in gradients)


def test_far_weights_are_scored_by_the_mixture_as_by_its_own_density():
    """Trap 4: at w = 50 narrow and wide scales both densities underflow in float32."""
    network = BayesianNetwork(mlp(3, [4], 1, seed=0), ScaleMixture(0.5, 1, 0.0025), Gaussian(1.0))
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.loc.copy_(torch.linspace(-50, 50, len(guide.loc)))
        guide.rho.fill_(float(inverse_softplus(torch.tensor(1e-6))))
    loss = FusedLoss(network, guide)
    x = torch.randn(5, 3)
    noise = torch.zeros_like(guide.loc)
    step = loss(guide.loc.detach(), guide.rho.detach(), (), noise, x, x[:, :1])
    mixture = ScaleMixtureNormal(*(torch.tensor(v).double() for v in (0.5, 1.0, 0.0025)))
    loc = guide.loc.detach().double().requires_grad_()
    log_prior = mixture.log_prob(loc).sum()
    entropy = dist.Normal(loc.detach(), guide.scale.detach().double()).log_prob(loc.detach()).sum()
    torch.testing.assert_close(step.kl.double(), entropy - log_prior.detach(), rtol=1e-6, atol=0)
    no_data = loss(guide.loc.detach(), guide.rho.detach(), (), noise, x, x[:, :1], data_weight=0.0)
    (slope,) = torch.autograd.grad(-log_prior, loc)
    torch.testing.assert_close(no_data.d_loc.double(), slope, rtol=1e-5, atol=1e-5)


def test_the_derivative_of_the_scale_is_that_of_softplus_and_zero_at_its_floor(regression):
    network, x, y = regression
    guide = MeanFieldGuide(network)
    with torch.no_grad():
        guide.rho.copy_(torch.linspace(-12, 60, len(guide.rho)))
    fused = loss_and_gradients(FusedELBO(), network, guide, x, y)
    expected = loss_and_gradients(Trace_ELBO(), network, guide, x, y)
    torch.testing.assert_close(fused, expected, rtol=1e-9, atol=1e-9)
    with torch.no_grad():  # softplus(-34.5) is 1.03e-15
        guide.rho.copy_(torch.tensor([-36.0, -34.0]).repeat(len(guide.rho) // 2))
    _, (_, d_rho) = loss_and_gradients(FusedELBO(), network, guide, x, y)
    assert (d_rho[::2] == 0).all()
    # Next to nothing but -1 / scale is left of the gradient, times d scale / d rho = scale.
    torch.testing.assert_close(d_rho[1::2], torch.full_like(d_rho[1::2], -1.0))


# Rows and chains


@pytest.mark.parametrize("n_particles", [1, 3])
def test_rows_of_weight_nothing_do_not_count(case, n_particles):
    network, x, y = case
    network.net.eval()  # batch norm in training sees all rows
    guide = MeanFieldGuide(network)
    loss = FusedLoss(network, guide)
    state = [tensor.detach() for tensor in learnt(network, guide)]
    noise = loss.noise(n_particles)
    own, others = (state[0], state[1], tuple(state[2:]), noise), torch.tensor([0, 1, 2, 0, 4])
    masked = loss(*own, x[others], y[others], row_weight=torch.tensor([1.0, 1, 1, 0, 0]).double())
    alone = loss(*own, x[:3], y[:3])
    torch.testing.assert_close(vars(masked), vars(alone), rtol=1e-10, atol=1e-10)
    halved = loss(*own, x, y, row_weight=torch.full((5,), 0.5).double())
    torch.testing.assert_close(halved.nll, loss(*own, x, y).nll / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize("closed_form_kl", [False, True])
def test_chains_in_a_leading_dimension_give_what_each_gives_alone(
    case, n_particles, closed_form_kl
):
    network, x, y = case
    network.net.eval()
    guide = MeanFieldGuide(network)
    loss = FusedLoss(network, guide, closed_form_kl=closed_form_kl)
    n_chains = 2
    state = [tensor.detach() for tensor in learnt(network, guide)]
    states = [[t + 0.1 * torch.randn_like(t) for t in state] for _ in range(n_chains)]
    noises = [loss.noise(n_particles) for _ in range(n_chains)]
    rows = torch.tensor([[0, 1, 2], [4, 3, 0]])
    weights = torch.tensor([[1.0, 1, 1], [1, 1, 0]]).double()
    options = {"data_weight": 3.0, "kl_weight": 0.5}
    x_of, y_of = x[rows], y[rows]
    loc, rho, *points = (torch.stack(parts) for parts in zip(*states, strict=True))
    together = loss(
        loc,
        rho,
        tuple(points),
        torch.stack(noises),
        x[rows],
        y[rows],
        row_weight=weights,
        **options,
    )
    for c in range(n_chains):
        own_loc, own_rho, *own_points = states[c]
        alone = loss(
            own_loc,
            own_rho,
            tuple(own_points),
            noises[c],
            x_of[c],
            y_of[c],
            row_weight=weights[c],
            **options,
        )
        for name in ("nll", "kl", "d_loc", "d_rho"):
            torch.testing.assert_close(
                getattr(together, name)[c], getattr(alone, name), rtol=1e-9, atol=1e-10
            )
        torch.testing.assert_close(
            tuple(d[c] for d in together.d_points), alone.d_points, rtol=1e-9, atol=1e-10
        )


def test_the_parts_of_a_step_weigh_as_they_are_told(regression):
    network, x, y = regression
    guide = MeanFieldGuide(network)
    for closed_form_kl in (False, True):
        loss = FusedLoss(network, guide, closed_form_kl=closed_form_kl)
        own = (guide.loc.detach(), guide.rho.detach(), (), loss.noise(), x, y)
        data = loss(*own, data_weight=1.0, kl_weight=0.0)
        kl = loss(*own, data_weight=0.0, kl_weight=1.0)
        both = loss(*own, data_weight=3.0, kl_weight=0.5)
        torch.testing.assert_close(both.nll, 3 * data.nll)
        torch.testing.assert_close(both.kl, kl.kl)
        for name in ("d_loc", "d_rho"):
            parts = 3 * getattr(data, name) + 0.5 * getattr(kl, name)
            torch.testing.assert_close(getattr(both, name), parts)


def test_draws_are_those_of_the_guide_at_the_same_noise(regression):
    network, _, _ = regression
    guide = MeanFieldGuide(network)
    loss = FusedLoss(network, guide)
    pyro.set_rng_seed(5)
    expected = guide()
    pyro.set_rng_seed(5)
    draws = loss.draws(guide.loc, guide.rho, loss.noise())
    torch.testing.assert_close(draws, expected, rtol=1e-12, atol=0)
