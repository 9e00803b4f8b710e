"""Posteriors with a guide of low rank: files, warm starts, diagnosis, ArviZ, refusals."""

import numpy as np
import pytest
import scipy.stats
import torch
from support import X, Y, learned, quick_fit, small_network

from pyrobbb import LowRankGuide, NonFiniteLossError, Posterior, prune, storage, update
from pyrobbb.diagnostics import layers


@pytest.fixture(scope="module")
def posterior():
    network = small_network()
    return quick_fit(network, guide=LowRankGuide(network, 3), restarts=2)


def test_a_guide_given_is_fitted_in_place_by_the_fused_engine():
    network = small_network()
    guide = LowRankGuide(network, 3)
    before = [tensor.clone() for tensor in guide.state_dict().values()]
    fitted = quick_fit(network, guide=guide)
    assert fitted.guide is guide
    assert fitted.settings.engine == "fused"
    for tensor, old in zip(guide.state_dict().values(), before, strict=True):
        assert (tensor != old).any()


def test_a_saved_posterior_keeps_its_rank_and_draws(posterior, tmp_path):
    posterior.save(tmp_path / "model")
    loaded = Posterior.load(tmp_path / "model")
    for one, other in zip(loaded.chains, posterior.chains, strict=True):
        assert type(one.guide) is LowRankGuide
        assert one.guide.rank == 3
        for tensor, expected in zip(learned(one), learned(other), strict=True):
            assert torch.equal(tensor, expected)
    for name, values in posterior.draws(20, seed=0).items():
        assert torch.equal(loaded.draws(20, seed=0)[name], values)


@pytest.mark.parametrize("shape", [(1, 22), (22,), (22, 0), (22, 23), (23, 2)])
def test_a_stored_factor_of_a_wrong_shape_is_refused(posterior, tmp_path, shape):
    chain = posterior.chains[0]
    guide = LowRankGuide(chain.network, 2)
    guide.cov_factor = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    changed = type(chain)(chain.network, guide, chain.history, chain.example, chain.settings)
    storage.write(tmp_path / "model", (changed,))
    with pytest.raises(ValueError, match=r"is damaged: .*(cov_factor|rank)"):
        Posterior.load(tmp_path / "model")


def test_a_subclass_is_not_saved(tmp_path):
    class Custom(LowRankGuide):
        pass

    network = small_network()
    custom = quick_fit(network, guide=Custom(network, 2))
    assert custom.settings.engine == "svi"
    with pytest.raises(TypeError, match=r"type Custom cannot be saved: .*mean_field, low_rank"):
        custom.save(tmp_path / "model")


def test_a_warm_start_has_the_rank_of_the_initial_posterior(posterior):
    warm = quick_fit(guide="low_rank", start=posterior, lr=1e-12, epochs=1, kl_warmup=0.0)
    for one, other in zip(warm.chains, posterior.chains, strict=True):
        assert one.guide.rank == 3
        torch.testing.assert_close(learned(one), learned(other), rtol=0, atol=1e-9)


def test_a_warm_start_needs_the_same_kind_of_guide(posterior):
    with pytest.raises(ValueError, match="a LowRankGuide, got a MeanFieldGuide"):
        quick_fit(start=posterior)


def test_the_density_in_arviz_is_that_of_the_joint_normal(posterior):
    tree = Posterior(posterior.chains[:1]).to_arviz(X, Y, n_draws=30, seed=0)
    guide = posterior.chains[0].guide
    group = tree["posterior"]
    u = np.concatenate([group[name].values.reshape(30, -1) for name in guide.shapes], 1)
    u[:, -1] = np.log(u[:, -1])
    root = (guide.scale[:, None] * guide.cov_factor).detach().numpy()
    covariance = root @ root.T + np.diag(guide.scale.detach().numpy() ** 2)
    joint = scipy.stats.multivariate_normal(guide.loc.detach().numpy(), covariance)
    np.testing.assert_allclose(
        tree["sample_stats"]["logq"].values[0], joint.logpdf(u) - u[:, -1], rtol=1e-8
    )


def test_predictions_are_those_of_the_draws(posterior):
    prediction = posterior.predict(X, n_draws=32, seed=3)
    draws = posterior.draws(32, seed=3)
    x = torch.as_tensor(X)
    hidden = torch.tanh(x @ draws["0.weight"].mT + draws["0.bias"][:, None])
    mean = (hidden @ draws["2.weight"].mT + draws["2.bias"][:, None]).mean(0)
    np.testing.assert_allclose(prediction.mean, mean.numpy(), rtol=1e-10)


def test_layers_have_the_marginal_standard_deviations(posterior):
    single = Posterior(posterior.chains[:1])
    draws = single.draws(20_000, seed=0)
    for name, row in layers(single).iterrows():
        ratio = draws[name].mean(0).abs() / draws[name].std(0)
        assert row["snr"] == pytest.approx(ratio.median().item(), rel=0.05, abs=0.02)


def test_a_diagnosis_continues_all_chains(posterior):
    report = str(posterior.diagnose(X, Y, seed=0))
    assert "scales of the weights" in report
    assert "not measured" not in report


def test_a_low_rank_posterior_is_neither_pruned_nor_a_prior(posterior):
    with pytest.raises(TypeError, match="must have a MeanFieldGuide, which has a scale"):
        prune(posterior, 0.5)
    with pytest.raises(TypeError, match="must have a MeanFieldGuide to become a prior"):
        update(posterior, X, Y)


@pytest.mark.parametrize("engine", ["fused", "svi"])
def test_a_diverging_fit_names_the_cause(engine):
    with pytest.raises(NonFiniteLossError, match="is not finite at step"):
        quick_fit(guide="low_rank", engine=engine, lr=1e200)
