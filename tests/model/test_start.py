"""Initial values for Pyro's autoguides, and the messages of a Pyro loop of one's own."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, JitTrace_ELBO, Predictive, Trace_ELBO
from pyro.infer import autoguide as guides
from support import X, Y, small_network
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, init_loc_fn, init_scale, mlp, priors

NORMAL = ["AutoNormal", "AutoDiagonalNormal", "AutoMultivariateNormal"]
LOW_RANK = "AutoLowRankMultivariateNormal"
TENSORS = torch.from_numpy(X).float(), torch.from_numpy(Y).float()


@pytest.fixture(autouse=True)
def empty_store():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def started(kind, network, **options):
    """Return an autoguide from the helpers, with its parameters created."""
    if kind != "AutoDelta":
        options["init_scale"] = init_scale(network)
    guide = getattr(guides, kind)(network, init_loc_fn=init_loc_fn(network), **options)
    guide(*TENSORS)
    return guide


@pytest.mark.parametrize("prior", [priors.Normal(1.0), priors.Laplace("learned")])
@pytest.mark.parametrize("kind", [*NORMAL, LOW_RANK, "AutoDelta"])
def test_an_autoguide_starts_where_the_mean_field_guide_does(kind, prior):
    network = small_network(dtype=torch.float32, prior=prior)
    expected = MeanFieldGuide(network)
    medians = started(kind, network).median(*TENSORS)
    sites = expected.split(expected.loc)
    assert medians.keys() == sites.keys()
    for name, loc in sites.items():
        constrained = torch.distributions.biject_to(expected.supports[name])(loc)
        torch.testing.assert_close(medians[name], constrained)


def test_the_scale_is_the_smallest_of_the_mean_field_guide():
    for sizes in ([4], [30, 5], []):
        network = BayesianNetwork(mlp(3, sizes, 1))
        assert init_scale(network) == pytest.approx(MeanFieldGuide(network).scale.min().item())
    guide = started("AutoDiagonalNormal", BayesianNetwork(mlp(3, [4], 1)))
    torch.testing.assert_close(guide.scale, torch.full_like(guide.scale, 0.05))


def test_the_start_is_a_copy_of_the_weights():
    network = small_network()
    start, before = init_loc_fn(network), network.net[0].weight.detach().clone()
    with torch.no_grad():
        network.net[0].weight.zero_()
    site = {"name": "0.weight", "fn": None, "is_observed": False}
    torch.testing.assert_close(start(site), before)


def final_loss(kind, data, **options):
    """Return the mean loss of the last of 150 steps with two hidden layers."""
    network = BayesianNetwork(mlp(1, [10, 10], 1, seed=0))
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    start = {"init_loc_fn": init_loc_fn(network), "init_scale": init_scale(network)}
    guide = getattr(guides, kind)(network, **(options or start))
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    return np.mean([svi.step(*data) for _ in range(150)][-50:])


def test_a_fit_from_there_learns_where_the_default_start_stalls():
    x = torch.rand(1000, 1) * 4 - 2
    data = x, torch.sin(2 * x) + 0.1 * torch.randn(1000, 1)
    assert final_loss("AutoDiagonalNormal", data, init_scale=0.1) > 950
    for kind in ("AutoDiagonalNormal", "AutoMultivariateNormal", LOW_RANK):
        assert final_loss(kind, data) < 850, kind


def test_a_likelihood_that_does_not_list_its_latent_sites_needs_an_input():
    def likelihood(output):
        scale = pyro.sample("spread", pyro.distributions.LogNormal(0.0, 1.0))
        return pyro.distributions.Normal(output, scale).to_event(1)

    network = small_network(likelihood=likelihood)
    start = init_loc_fn(network, X)
    site = {"name": "spread", "fn": None, "is_observed": False}
    torch.testing.assert_close(start(site), torch.tensor(1.0).to(start(site)))


# Messages


WRONG = {
    "one-dimensional": TENSORS[0][:, 0],
    "columns": TENSORS[0][:, :2],
    "dtype": TENSORS[0].double(),
}


def call(network, x):
    network(x, TENSORS[1])


def step(network, x):
    objective = Trace_ELBO()
    SVI(network, MeanFieldGuide(network), pyro.optim.Adam({"lr": 0.01}), objective).step(
        x, TENSORS[1]
    )


def jit_step(network, x):
    objective = JitTrace_ELBO()
    SVI(network, MeanFieldGuide(network), pyro.optim.Adam({"lr": 0.01}), objective).step(
        x, TENSORS[1]
    )


def predict(network, x):
    Predictive(network, guide=MeanFieldGuide(network), num_samples=3, parallel=True)(x)


NETS = {
    "layers": lambda: mlp(3, [4], 1),
    "own": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)),
}


@pytest.mark.parametrize("use", [call, step, jit_step, predict])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("wrong", WRONG)
def test_the_model_refuses_an_input_with_the_message_of_fit(use, net, wrong):
    network = BayesianNetwork(NETS[net]())
    with pytest.raises(ValueError, match=r"^`x` with rows of shape .* does not fit the") as error:
        use(network, WRONG[wrong])
    if wrong != "dtype":  # which `fit` converts
        with pytest.raises(ValueError, match="`x` with rows of shape") as of_fit:
            fit(network, WRONG[wrong], TENSORS[1], epochs=1, progress=False)
        # Pyro appends the shapes of its sites to errors within a trace.
        assert str(error.value).startswith(str(of_fit.value))


def test_an_array_in_place_of_a_tensor_is_named():
    with pytest.raises(TypeError, match="`x` must be a tensor in a call of the model, got nd"):
        small_network()(X, TENSORS[1])


def test_an_error_of_the_module_itself_is_raised_as_it_is():
    class Failing(nn.Linear):
        def forward(self, x):
            if self.training:
                raise RuntimeError("only in training")
            return super().forward(x)

    network = BayesianNetwork(Failing(3, 1))
    with pytest.raises(RuntimeError, match=r"^only in training$"):
        network(*TENSORS)
