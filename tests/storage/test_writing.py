"""Writing a posterior: it is unchanged when it is read, and what cannot be stored is refused."""

import math
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from stored_folders import CASES, X, Y, by_hand, fitted, header_of
from torch import nn

from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, auto_normal, mlp, priors, storage


def with_batch_norm():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


WITHOUT_BATCH_NORM = priors.ByName({"1.*": None})


@pytest.mark.parametrize("name", CASES)
def test_posterior_is_the_same_after_saving_and_loading(name, tmp_path):
    before = fitted(**CASES[name])
    before.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model")
    assert len(after.chains) == len(before.chains)
    for old, new in zip(before.chains, after.chains, strict=True):
        assert new.network.prior == old.network.prior
        assert new.network.likelihood == old.network.likelihood
        assert new.settings == old.settings
        assert not new.network.training
        assert type(new.guide) is type(old.guide)
        assert torch.equal(new.example, old.example)
        for part in ("network", "guide"):
            state = getattr(new, part).state_dict()
            for key, value in getattr(old, part).state_dict().items():
                assert torch.equal(state[key], value), key
                assert state[key].dtype == value.dtype, key
        for field, value in vars(old.history).items():
            np.testing.assert_array_equal(getattr(new.history, field), value)
    for key, value in before.draws(20, seed=0).items():
        assert torch.equal(value, after.draws(20, seed=0)[key])
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_elbo_is_the_same_after_loading_in_another_process(posterior, folder):
    """A lost prior or scale would change it."""
    program = f"""
        import torch
        from pyro.infer import Trace_ELBO
        from pyrobbb import Posterior
        torch.set_num_threads(1)
        posterior = Posterior.load({str(folder)!r})
        x = torch.tensor({X.tolist()}); y = torch.tensor({Y.tolist()})
        torch.manual_seed(7)
        print(repr(Trace_ELBO().loss(posterior.network, posterior.guide, x, y)))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    torch.manual_seed(7)
    x, y = torch.tensor(X.tolist()), torch.tensor(Y.tolist())
    assert float(run.stdout) == Trace_ELBO().loss(posterior.network, posterior.guide, x, y)


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_custom_module_is_loaded_with_its_buffers(tmp_path, guide):
    before = fitted(with_batch_norm(), WITHOUT_BATCH_NORM, guide=guide)
    before.save(tmp_path / "model")
    with pytest.raises(
        ValueError, match="not a plain `mlp`, and code is not stored: pass `network`"
    ):
        Posterior.load(tmp_path / "model")
    network = BayesianNetwork(with_batch_norm(), WITHOUT_BATCH_NORM)
    after = Posterior.load(tmp_path / "model", network)
    assert after.network is network
    for name, value in before.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    np.testing.assert_array_equal(
        before.predict(X, n_draws=5, seed=0).mean, after.predict(X, n_draws=5, seed=0).mean
    )


def test_custom_likelihood_may_have_latent_sites(tmp_path):
    def custom(output):
        log_noise = pyro.sample("log_noise", dist.Normal(0.0, 1.0))
        return dist.Normal(output, torch.exp(log_noise))

    before = fitted(likelihood=custom)
    before.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), likelihood=custom))
    assert torch.equal(before.draws(3, seed=0)["log_noise"], after.draws(3, seed=0)["log_noise"])


def test_header_describes_the_data(tmp_path):
    fitted().save(tmp_path / "model")
    columns = {"shape": [3], "dtype": "float32"}, {"shape": [1], "dtype": "float32"}
    data = dict(zip("xy", columns, strict=True), n_data=40)
    assert header_of(tmp_path / "model")["data"] == data
    fitted(**CASES["classes"]).save(tmp_path / "model")
    labels = {"shape": [], "dtype": "int64"}
    assert header_of(tmp_path / "model")["data"] == {**data, "y": labels}


def test_module_that_rejects_a_single_row_is_saved(tmp_path):
    class Squeezed(nn.Linear):
        def forward(self, x):
            return super().forward(x).squeeze()

    before = fitted(Squeezed(3, 1), y=Y[:, 0])
    before.save(tmp_path / "model")
    assert header_of(tmp_path / "model")["data"]["y"] == {"shape": [], "dtype": "float32"}
    after = Posterior.load(tmp_path / "model", BayesianNetwork(Squeezed(3, 1)))
    assert torch.equal(after.guide.loc, before.guide.loc)


def test_chains_with_different_priors_cannot_be_saved_together(tmp_path):
    chains = [by_hand(BayesianNetwork(mlp(3, [6], 1), priors.Normal(s))) for s in (1.0, 2.0)]
    with pytest.raises(
        ValueError,
        match="must have the same prior to be saved together: chain 1 differs from chain 0",
    ):
        storage.write(tmp_path / "model", [chain for own in chains for chain in own.chains])
    with pytest.raises(ValueError, match="`chains` must hold at least one chain, got none"):
        storage.write(tmp_path / "model", [])


def test_other_guides_cannot_be_saved(tmp_path):
    class Other(MeanFieldGuide):
        pass

    network = BayesianNetwork(mlp(3, [6], 1))
    for guide in (lambda _: nn.Linear(1, 1), Other):
        with pytest.raises(TypeError, match=r"A guide of type \w+ cannot be saved"):
            by_hand(network, guide).save(tmp_path / "model")
    with pytest.raises(TypeError, match="`history` must be a History to be saved, got NoneType"):
        Posterior((replace(by_hand(network).chains[0], history=None),)).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_extra_values_and_tensors_are_stored(posterior, tmp_path):
    extra = {"estimator": {"name": "Regressor", "scale": np.float64(2.0), "columns": ("a", "b")}}
    tensors = {"mean": torch.arange(3.0), "classes": torch.arange(2)}
    storage.write(tmp_path / "model", posterior.chains, extra=extra, tensors=tensors)
    stored, values = storage.read_extra(tmp_path / "model")
    assert stored == {"estimator": {"name": "Regressor", "scale": 2.0, "columns": ["a", "b"]}}
    assert values.keys() == tensors.keys()
    assert all(torch.equal(values[name], tensors[name]) for name in tensors)
    after = Posterior.load(tmp_path / "model")
    assert torch.equal(after.guide.loc, posterior.guide.loc)
    for extra, error in (({"f": math.cos}, TypeError), ({"f": math.nan}, ValueError)):
        with pytest.raises(error, match=r"`extra\['f'\]` must be .*to be stored as JSON, got"):
            storage.write(tmp_path / "model", posterior.chains, extra=extra)
    with pytest.raises(
        TypeError, match=r"'extra.odd' must be a dense tensor to be saved, got list"
    ):
        storage.write(tmp_path / "model", posterior.chains, tensors={"odd": [1.0]})
    posterior.save(tmp_path / "plain")
    assert storage.read_extra(tmp_path / "plain") == ({}, {})


@pytest.mark.parametrize("guide", [MeanFieldGuide, auto_normal])
def test_posterior_made_by_hand_can_be_saved(tmp_path, guide):
    before = by_hand(BayesianNetwork(mlp(3, [6], 1)), guide)
    before.draws(1)  # an autoguide creates its parameters when it first runs
    before.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model")
    assert torch.equal(before.draws(3, seed=0)["0.bias"], after.draws(3, seed=0)["0.bias"])
