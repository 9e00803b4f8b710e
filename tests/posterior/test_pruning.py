"""Pruning: against a ranking in NumPy and masked draws, with storage and diagnostics."""

import copy
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from support import combined, posterior_of
from torch import nn

from pyrobbb import BayesianNetwork, FusedELBO, MeanFieldGuide, Posterior, fit, mlp, prune
from pyrobbb.diagnostics import diagnose, khat_of_chains, layers, loo
from pyrobbb.diagnostics.importance import log_ratios
from pyrobbb.elbo.fused_loss import CannotFuseError
from pyrobbb.fitted.history import History
from pyrobbb.likelihoods import Categorical, Gaussian
from pyrobbb.model.flat_guide import inverse_softplus
from pyrobbb.model.mean_field import NormalOrPoint
from pyrobbb.plots import plot_snr
from pyrobbb.posterior.pruning import sparse_weights
from pyrobbb.priors import ByName, Normal

N_WEIGHTS = 3 * 5 + 5 + 5 * 2 + 2
FRACTIONS = [0.0, 0.1, 0.25, 0.5, 0.77, 0.98, 0.999]


def data(n=12, n_out=2):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 3, generator=generator)
    return x, torch.randn(n, n_out, generator=generator)


def posterior_at_random(seed=0, likelihood=None, dtype=torch.float32, prior=None):
    """Return a posterior with means and scales of many sizes; latent sites are the noisiest."""
    net = mlp(3, [5], 2, "tanh", seed=seed).to(dtype)
    network = BayesianNetwork(net, prior, likelihood).eval()
    guide = MeanFieldGuide(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        guide.loc.copy_(torch.randn(guide.loc.shape, generator=generator))
        scale = torch.exp(torch.randn(guide.rho.shape, generator=generator) - 1)
        guide.rho.copy_(inverse_softplus(scale))
        if len(guide.loc) > N_WEIGHTS:
            guide.loc[N_WEIGHTS:] = 1e-6
    empty = np.zeros(0)
    history = History(empty, empty, empty, empty.astype(int), empty)
    return posterior_of(network, guide, history, torch.zeros(1, 3, dtype=dtype))


def brute_force(loc, rho, fraction):
    """Return which weights are removed: one at a time, by ratio, the first one of a tie."""
    loc, rho = (np.asarray(v.detach(), np.float64) for v in (loc, rho))
    ratio = [abs(m) / math.log1p(math.exp(r)) for m, r in zip(loc, rho, strict=True)]
    gone = np.zeros(len(loc), bool)
    for _ in range(round(fraction * len(loc))):
        left = [i for i in range(len(loc)) if not gone[i]]
        gone[min(left, key=lambda i: (ratio[i], i))] = True
    return gone


def state(posterior):
    parts = (posterior.guide, posterior.network)
    return [copy.deepcopy(part.state_dict()) for part in parts]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def flat_weights(draws):
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    return torch.cat([draws[name].flatten(1) for name in names], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_only_the_weights_with_the_lowest_ratios_are_removed(fraction, dtype):
    posterior = posterior_at_random(dtype=dtype)
    loc, rho, scale = posterior.guide.loc, posterior.guide.rho, posterior.guide.scale
    gone = brute_force(loc[:N_WEIGHTS], rho[:N_WEIGHTS], fraction)
    guide = prune(posterior, fraction).guide
    np.testing.assert_array_equal((guide.scale == 0)[:N_WEIGHTS], gone)
    np.testing.assert_array_equal((guide.loc == 0)[:N_WEIGHTS], gone)
    assert gone.sum() == round(fraction * N_WEIGHTS)
    stays = torch.from_numpy(np.append(~gone, [True] * (len(loc) - N_WEIGHTS)))
    assert torch.equal(guide.loc[stays], loc[stays])
    assert torch.equal(guide.scale[stays], scale[stays])


def test_learned_scales_are_not_pruned():
    posterior = posterior_at_random(prior=Normal("learned"))
    draws, pruned = posterior.draws(5, seed=0), prune(posterior, 0.9).draws(5, seed=0)
    n_removed = sum(int((value[0] == 0).sum()) for value in pruned.values())
    assert n_removed == round(0.9 * N_WEIGHTS)
    for name in ("0.weight_scale", "0.bias_scale", "2.weight_scale", "2.bias_scale"):
        assert torch.equal(pruned[name], draws[name])


def test_latents_of_the_likelihood_are_not_pruned():
    posterior = posterior_at_random(likelihood=Gaussian())
    before, after = posterior.guide, prune(posterior, 0.99).guide
    assert len(before.loc) > N_WEIGHTS
    assert torch.equal(after.loc[N_WEIGHTS:], before.loc[N_WEIGHTS:])
    assert torch.equal(after.rho[N_WEIGHTS:], before.rho[N_WEIGHTS:])
    assert (after.scale == 0).sum() == N_WEIGHTS


def test_point_parameters_are_not_counted_as_weights():
    posterior = posterior_at_random(prior=ByName({"*.bias": None}, default=Normal(1.0)))
    guide = prune(posterior, 0.5).guide
    assert (guide.scale == 0).sum() == round(0.5 * (3 * 5 + 5 * 2))


def test_fraction_0_changes_nothing():
    posterior = posterior_at_random()
    pruned = prune(posterior, 0)
    assert same(pruned.guide.state_dict(), posterior.guide.state_dict())
    x, _ = data()
    np.testing.assert_array_equal(
        pruned.predict(x, 20, seed=1).mean, posterior.predict(x, 20, seed=1).mean
    )


def test_pruned_posterior_is_a_copy():
    posterior = posterior_at_random()
    before = state(posterior)
    pruned = prune(posterior, 0.9)
    with torch.no_grad():
        pruned.guide.loc.add_(1.0)
    assert all(same(*pair) for pair in zip(before, state(posterior), strict=True))
    assert not posterior.guide.has_points
    assert pruned.guide.has_points


@pytest.mark.parametrize("fraction", [0.2, 0.6])
def test_ties_are_removed_in_order(fraction):
    posterior = posterior_at_random()
    with torch.no_grad():
        posterior.guide.loc.copy_((-1.0) ** torch.arange(len(posterior.guide.loc)))
        posterior.guide.rho.fill_(-1.0)
    gone = prune(posterior, fraction).guide.scale == 0
    k = round(fraction * N_WEIGHTS)
    assert gone[:k].all()
    assert not gone[k:].any()


def test_weights_that_are_already_pruned_count_towards_the_fraction():
    posterior = posterior_at_random()
    with torch.no_grad():
        posterior.guide.loc[3] = 0.0
    once, twice = prune(posterior, 0.75), prune(prune(posterior, 0.4), 0.75)
    assert same(once.guide.state_dict(), twice.guide.state_dict())
    assert same(prune(once, 0.1).guide.state_dict(), once.guide.state_dict())


def test_draws_differ_only_by_exact_zeros():
    posterior = posterior_at_random(likelihood=Gaussian())
    pruned = prune(posterior, 0.6)
    gone = pruned.guide.scale[:N_WEIGHTS] == 0
    before, after = (p.draws(40, seed=3) for p in (posterior, pruned))
    expected = flat_weights(before)
    expected[:, gone] = 0.0
    assert torch.equal(flat_weights(after), expected)
    assert (flat_weights(after) == 0).sum() == 40 * round(0.6 * N_WEIGHTS)
    assert torch.equal(after["noise_scale"], before["noise_scale"])


@pytest.mark.parametrize("likelihood", [Gaussian(0.3), Categorical()], ids=["normal", "classes"])
def test_predictions_are_those_of_a_masked_network(likelihood):
    posterior = posterior_at_random(likelihood=likelihood, dtype=torch.float64)
    x = data()[0].double()
    gone = brute_force(posterior.guide.loc, posterior.guide.rho, 0.7)
    draws = posterior.draws(30, seed=2)
    outputs = []
    for i in range(30):
        flat = flat_weights(draws)[i].numpy() * ~gone
        w1, b1, w2, b2 = np.split(flat, [15, 20, 30])
        hidden = np.tanh(x.numpy() @ w1.reshape(5, 3).T + b1)
        outputs.append(hidden @ w2.reshape(2, 5).T + b2)
    prediction = prune(posterior, 0.7).predict(x.numpy(), 30, seed=2)
    if isinstance(likelihood, Categorical):
        expected, got = scipy.special.softmax(outputs, -1).mean(0), prediction.probs
    else:
        expected, got = np.mean(outputs, 0), prediction.mean
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_each_chain_is_ranked_separately():
    chains = [posterior_at_random(seed) for seed in (1, 2, 3)]
    pruned = prune(combined(chains), 0.5)
    masks = []
    for chain, before in zip(pruned.chains, chains, strict=True):
        gone = brute_force(before.guide.loc[:N_WEIGHTS], before.guide.rho[:N_WEIGHTS], 0.5)
        np.testing.assert_array_equal((chain.guide.scale == 0)[:N_WEIGHTS], gone)
        masks.append(gone)
    assert (masks[0] != masks[1]).any()
    zeros = (flat_weights(pruned.draws(30, seed=0)) == 0).reshape(3, 10, -1).numpy()
    np.testing.assert_array_equal(zeros, np.broadcast_to(np.array(masks)[:, None], zeros.shape))


@pytest.mark.parametrize("n_chains", [1, 2])
def test_pruned_posterior_is_the_same_after_loading(tmp_path, n_chains):
    chains = [posterior_at_random(seed) for seed in range(n_chains)]
    pruned = prune(chains[0] if n_chains == 1 else combined(chains), 0.6)
    pruned.save(tmp_path / "pruned")
    read = Posterior.load(tmp_path / "pruned")
    for chain, other in zip(read.chains, pruned.chains, strict=True):
        assert same(chain.guide.state_dict(), other.guide.state_dict())
        assert (chain.guide.scale == 0).sum() == round(0.6 * N_WEIGHTS)
    assert same(read.draws(10, seed=0), pruned.draws(10, seed=0))


def test_to_arviz_has_exact_zeros_and_an_infinite_density():
    pruned = prune(posterior_at_random(likelihood=Gaussian()), 0.6)
    tree = pruned.to_arviz(*data(), n_draws=30, seed=0)
    names = dict(pruned.network.bayesian_parameters())
    zeros = sum(int((tree["posterior"][name] == 0).sum()) for name in names)
    assert zeros == 30 * round(0.6 * N_WEIGHTS)
    assert np.isfinite(tree["sample_stats"]["lp"]).all()
    assert (tree["sample_stats"]["logq"] == math.inf).all()
    for weigh in (khat_of_chains, loo):
        with pytest.raises(ValueError, match="point masses, such as pruned weights"):
            weigh(tree)
    assert (log_ratios(pruned.chains, *data(), n_draws=20, seed=0) == -math.inf).all()


@pytest.fixture(scope="module")
def fitted():
    x, y = data(n_out=1)
    network = BayesianNetwork(mlp(3, [5], 1, "tanh", seed=0))
    return fit(network, x, y, epochs=20, seed=0, progress=False, restarts=2)


def test_diagnosis_names_the_checks_that_point_masses_prevent(fitted):
    x, y = data(n_out=1)
    diagnosis = diagnose(prune(fitted, 0.5), x, y, n_draws=100, seed=0)
    for name in ("ELBO", "k-hat of the weights", "PSIS-LOO"):
        assert diagnosis[name].verdict == "not measured"
    assert "is pruned and cannot be fitted" in diagnosis["ELBO"].meaning
    assert "pruned weights" in diagnosis["k-hat of the weights"].meaning
    assert diagnosis["weights at the prior"].verdict != "not measured"


def test_layers_have_a_ratio_of_0_for_pruned_weights():
    posterior = posterior_at_random()
    with torch.no_grad():
        posterior.guide.loc.copy_(1.0 + torch.arange(len(posterior.guide.loc)))
        posterior.guide.rho.fill_(-3.0)
    table = layers(prune(posterior, 15 / N_WEIGHTS))
    assert list(table["snr"] == 0) == [True, False, False, False]
    assert list(table["below_1"]) == [1.0, 0.0, 0.0, 0.0]
    assert list(table["kl"] == math.inf) == [True, False, False, False]
    assert list(table["at_prior"]) == [0.0, 0.0, 0.0, 0.0]


def test_plot_of_ratios_omits_pruned_weights():
    pruned = prune(posterior_at_random(), 0.5)
    n_left = N_WEIGHTS - round(0.5 * N_WEIGHTS)
    assert f"of {n_left} weights" in plot_snr(pruned).texts[0].get_text()
    with pytest.raises(ValueError, match="all are pruned"):
        plot_snr(prune(posterior_at_random(), 0.999))


@pytest.mark.parametrize("engine", ["svi", "fused", "auto"])
def test_fit_refuses_a_pruned_guide(fitted, engine):
    pruned = prune(Posterior(fitted.chains[:1]), 0.5)
    with pytest.raises(ValueError, match="`guide` is pruned and cannot be fitted further"):
        fit(
            pruned.network,
            *data(n_out=1),
            guide=pruned.guide,
            engine=engine,
            epochs=1,
            progress=False,
        )


@pytest.mark.parametrize("engine", ["svi", "fused", "auto"])
@pytest.mark.parametrize("chains", [slice(0, 1), slice(None)], ids=["single", "chains"])
def test_fit_refuses_a_pruned_initial_posterior(fitted, chains, engine):
    pruned = prune(Posterior(fitted.chains[chains]), 0.5)
    with pytest.raises(ValueError, match="`start` is pruned and cannot be fitted further"):
        fit(
            pruned.chains[0].network,
            *data(n_out=1),
            start=pruned,
            engine=engine,
            epochs=1,
            progress=False,
        )


def test_fused_loss_refuses_a_pruned_guide(fitted):
    pruned = prune(Posterior(fitted.chains[:1]), 0.5)
    with pytest.raises(CannotFuseError, match="the guide is pruned"):
        FusedELBO().loss(pruned.network, pruned.guide, *data(n_out=1))


@pytest.mark.filterwarnings("ignore:Encountered .inf")
@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceMeanField_ELBO()], ids=["trace", "mean_field"])
def test_the_negative_elbo_of_a_point_mass_is_infinite(elbo):
    pruned = prune(posterior_at_random(prior=Normal(1.0)), 0.5)
    assert elbo.loss(pruned.network, pruned.guide, *data()) == math.inf


def test_density_is_that_of_a_normal_or_a_point_mass():
    loc, scale = torch.tensor([0.5, 0.0, 0.0]), torch.tensor([2.0, 0.0, 0.0])
    log_prob = NormalOrPoint(loc, scale).log_prob(torch.tensor([1.0, 0.0, 0.1]))
    expected = [scipy.stats.norm(0.5, 2.0).logpdf(1.0), math.inf, -math.inf]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="parameter scale"):
            NormalOrPoint(0.0, torch.tensor(wrong), validate_args=True)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.0, 1.5, math.nan, math.inf])
def test_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="`fraction` must be"):
        prune(posterior_at_random(), fraction)


@pytest.mark.parametrize("fraction", ["0.5", None, True])
def test_fraction_must_be_a_number(fraction):
    with pytest.raises(TypeError, match="`fraction` must be a number"):
        prune(posterior_at_random(), fraction)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9, 0.999])
def test_sparse_weights_have_the_output_of_masked_weights(fraction):
    pruned = prune(posterior_at_random(), fraction)
    net, x = pruned.network.net, data()[0]
    weights = sparse_weights(pruned)
    masked = pruned.guide.split(pruned.guide.loc.detach())
    torch.testing.assert_close(
        torch.func.functional_call(net, weights, x),
        torch.func.functional_call(net, {name: masked[name] for name in weights}, x),
    )
    for name, weight in weights.items():
        torch.testing.assert_close(weight.to_dense(), masked[name], rtol=0, atol=0)
    matrices = [weight for weight in weights.values() if weight.dim() == 2]
    assert {weight.layout for weight in matrices} == {torch.sparse_csr}
    n_kept = sum(int((masked[name] != 0).sum()) for name, w in weights.items() if w.dim() == 2)
    assert sum(len(weight.values()) for weight in matrices) == n_kept


def test_sparse_weights_need_less_space_on_disk(tmp_path):
    net = mlp(50, [40], 10, seed=0)
    network = BayesianNetwork(net).eval()
    empty = np.zeros(0)
    history = History(empty, empty, empty, empty.astype(int), empty)
    posterior = posterior_of(network, MeanFieldGuide(network), history, torch.zeros(1, 50))
    size = {}
    for fraction in (0.0, 0.75, 0.95):
        torch.save(sparse_weights(prune(posterior, fraction)), tmp_path / "sparse.pt")
        size[fraction] = (tmp_path / "sparse.pt").stat().st_size
    torch.save(dict(net.named_parameters()), tmp_path / "dense.pt")
    dense = (tmp_path / "dense.pt").stat().st_size
    assert size[0.95] < size[0.75] < 0.75 * dense < size[0.0]


def test_sparse_weights_refuse_several_chains():
    chains = combined([posterior_at_random(0), posterior_at_random(1)])
    with pytest.raises(ValueError, match=r"must have a single chain, got 2: choose one"):
        sparse_weights(chains)


def test_other_guides_and_objects_that_are_not_posteriors_are_refused():
    x, y = data()
    network = BayesianNetwork(mlp(3, [5], 2))
    auto = fit(network, x, y, guide="auto_normal", epochs=1, progress=False)
    with pytest.raises(TypeError, match=r"must have a MeanFieldGuide.* got _LocalAutoNormal"):
        prune(auto, 0.5)
    with pytest.raises(TypeError, match="`posterior` must be a Posterior, got Linear"):
        prune(nn.Linear(1, 1), 0.5)


@pytest.mark.parametrize("call", [lambda p: prune(p, 0.5), sparse_weights])
@pytest.mark.parametrize("value", [None, "model", 3])
def test_what_is_no_posterior_is_refused(call, value):
    with pytest.raises(TypeError, match="`posterior` must be a Posterior, got"):
        call(value)
