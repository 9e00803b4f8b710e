"""Networks with a frozen trunk: it runs once, is shared, and is stored by its hash."""

import copy
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pyrobbb import BayesianNetwork, Posterior, fit, last_layer, priors
from pyrobbb.likelihoods import Categorical, Gaussian
from pyrobbb.model.head import split_of
from pyrobbb.prediction import drawn_distributions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3)).astype("f")
Y = X.sum(1, keepdims=True) + RNG.normal(size=(23, 1)).astype("f")
HEAD = priors.ByName({"head.*": priors.Normal(1.0)}, default=None)


class Net(nn.Module):
    """A trunk, functions of its output, and a head."""

    def __init__(self, trunk, n_outputs=1, between=torch.tanh):
        super().__init__()
        self.trunk, self.head, self.between = trunk, nn.Linear(4, n_outputs), between

    def forward(self, x):
        return self.head(self.between(self.trunk(x)))


class Residual(nn.Module):
    """Convolutions with a skip connection within the trunk, without a module for all of it."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.block = nn.Sequential(self.conv2, nn.ReLU())
        self.pool, self.head = nn.AdaptiveAvgPool1d(1), nn.Linear(4, 1)

    def forward(self, x):
        x = torch.relu(self.conv1(x[:, None]))
        return self.head(self.pool(self.block(x)).flatten(1))


class Attention(nn.Module):
    """A transformer layer, of which the head takes the first position."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.norm(self.encoder(self.embed(x[..., None])))[:, 0])


def dense():
    return Net(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)))


def normalised():
    return Net(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)))


def chain():
    layers = [("0", nn.Linear(3, 4)), ("1", nn.Tanh()), ("head", nn.Linear(4, 1))]
    net = nn.Sequential()
    for name, layer in layers:
        net.add_module(name, layer)
    return net


NETS = {
    "module": dense,
    "batch norm and dropout": normalised,
    "sequence": chain,
    "convolutions": Residual,
    "transformer": Attention,
}


def network_of(make, *, frozen=True, **parts):
    """Return a network in float32 whose head is Bayesian and whose other weights are frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith("head"))
    for module in net.modules():
        module.eval()
    return BayesianNetwork(net, HEAD, **parts)


def quick(network, **options):
    defaults = {"epochs": 3, "batch_size": 10, "engine": "fused", "seed": 1, "progress": False}
    return fit(network, X, Y, **{**defaults, **options})


def without_split(monkeypatch):
    """Make predictions run the whole network for every draw."""
    monkeypatch.setattr(drawn_distributions, "split_of", lambda *_: None)


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_predictions_are_those_of_the_whole_network_for_each_draw(make):
    posterior = quick(network_of(make))
    prediction = posterior.predict(X[:7], n_draws=20, seed=0)
    draws, net = posterior.draws(20, seed=0), posterior.network.net
    weights = [{n: d[i] for n, d in draws.items() if n.startswith("head")} for i in range(20)]
    with torch.no_grad():
        outputs = [torch.func.functional_call(net, w, torch.tensor(X[:7])) for w in weights]
    np.testing.assert_allclose(prediction.mean, torch.stack(outputs).mean(0), rtol=1e-4, atol=1e-5)
    assert split_of(posterior.network, torch.tensor(X)) is not None


@pytest.mark.parametrize("make", [dense, chain])
def test_a_trunk_with_point_parameters_is_not_run_for_each_draw_either(make):
    posterior = quick(network_of(make, frozen=False))
    assert split_of(posterior.network, torch.tensor(X)) is not None


def test_the_trunk_runs_once_for_all_draws_and_chains(monkeypatch):
    posterior = quick(network_of(dense), restarts=3)
    rows = []
    original = torch.nn.functional.relu
    monkeypatch.setattr(
        torch.nn.functional, "relu", lambda x, **kw: rows.append(len(x)) or original(x, **kw)
    )
    posterior.predict(X, seed=0).mean  # noqa: B018  # the first also looks for the trunk
    rows.clear()
    posterior.predict(X, n_draws=200, seed=0).mean  # noqa: B018
    assert rows.count(len(X)) == 1
    assert sum(rows) < 2 * len(X)


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@pytest.mark.parametrize("engine", ["fused", "svi"])
def test_a_fit_on_cached_features_is_that_of_the_whole_network(make, engine):
    network = network_of(make)
    whole = quick(network, engine=engine)
    cached = quick(network, engine=engine, cache_features=True)
    for name in ("nll", "kl"):
        np.testing.assert_allclose(
            getattr(cached.history, name), getattr(whole.history, name), rtol=1e-4
        )
    expected = whole.predict(X, seed=0).mean
    np.testing.assert_allclose(cached.predict(X, seed=0).mean, expected, rtol=1e-3, atol=1e-4)


def test_cached_features_work_with_validation_restarts_callbacks_and_checkpoints(tmp_path):
    network, seen = network_of(dense), []
    options = {
        "restarts": 2,
        "validation": (X[:5], Y[:5]),
        "callbacks": lambda end: seen.append(end.posterior().predict(X[:2], seed=0).mean),
        "cache_features": True,
    }
    posterior = quick(network, checkpoint=tmp_path / "fit", **options)
    whole = quick(network, **{**options, "cache_features": False})
    np.testing.assert_allclose(seen[2], seen[8], rtol=1e-4)
    np.testing.assert_allclose(
        posterior.chains[1].history.validation_nll,
        whole.chains[1].history.validation_nll,
        rtol=1e-4,
    )
    again = quick(network, checkpoint=tmp_path / "fit", **options)
    assert again.chains[0].guide.loc.equal(posterior.chains[0].guide.loc)
    further = quick(network, start=posterior, cache_features=True, kl_warmup=0.0)
    assert len(further.chains) == 2


def test_frozen_weights_are_shared_by_fits_restarts_and_snapshots():
    network, snapshots = network_of(dense), []
    posterior = quick(network, restarts=2, callbacks=lambda end: snapshots.append(end.posterior()))
    cached = quick(network, cache_features=True)
    weight = network.net.trunk[0].weight
    for chain_ in (*posterior.chains, *snapshots[0].chains, *cached.chains):
        assert chain_.network.net.trunk[0].weight is weight
        assert chain_.network.net.head.weight is not network.net.head.weight
    moved = quick(network, dtype="float64").network.net.trunk[0].weight
    assert moved.dtype == torch.float64
    assert weight.dtype == torch.float32


def test_frozen_weights_are_stored_by_their_hash(tmp_path):
    network = network_of(dense)
    posterior = quick(network, restarts=2)
    posterior.save(tmp_path / "head")
    posterior.save(tmp_path / "whole", frozen=True)
    sizes = [
        sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors"))
        for name in ("head", "whole")
    ]
    n_frozen = sum(p.numel() for p in network.net.trunk.parameters())
    assert sizes[1] - sizes[0] > 2 * (4 * n_frozen - 4 * 32) - 600
    expected = posterior.predict(X, seed=0).mean
    for given in (copy.deepcopy(network), copy.deepcopy(network.net)):
        loaded = Posterior.load(tmp_path / "head", given)
        np.testing.assert_array_equal(loaded.predict(X, seed=0).mean, expected)
    with torch.no_grad():
        network.net.trunk[2].bias += 1
    with pytest.raises(ValueError, match=r"'trunk\.2\.bias' differs from that of the fit"):
        Posterior.load(tmp_path / "head", network)
    loaded = Posterior.load(tmp_path / "whole", copy.deepcopy(network))
    np.testing.assert_array_equal(loaded.predict(X, seed=0).mean, expected)


def test_a_frozen_perceptron_is_loaded_with_its_module_or_all_of_its_weights(tmp_path):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    net[0].requires_grad_(False)
    posterior = last_layer(net, X, Y)
    posterior.save(tmp_path / "head")
    with pytest.raises(ValueError, match="saved without its 2 frozen parameters: pass the module"):
        Posterior.load(tmp_path / "head")
    loaded = Posterior.load(tmp_path / "head", net)
    posterior.save(tmp_path / "whole", frozen=True)
    for other in (loaded, Posterior.load(tmp_path / "whole")):
        expected = posterior.predict(X, seed=0).mean
        np.testing.assert_array_equal(other.predict(X, seed=0).mean, expected)


def test_a_module_alone_is_not_enough_for_a_custom_likelihood(tmp_path):
    posterior = quick(network_of(dense, likelihood=lambda output: Gaussian(1.0)(output)))
    posterior.save(tmp_path / "head")
    with pytest.raises(ValueError, match="code is not stored: pass a BayesianNetwork as `network`"):
        Posterior.load(tmp_path / "head", copy.deepcopy(posterior.network.net))


def test_a_trunk_is_named_by_itself_or_its_name():
    net = network_of(dense).net
    for trunk in ("trunk", net.trunk):
        network = BayesianNetwork(net, HEAD, trunk=trunk)
        assert network.trunk == "trunk"
        assert split_of(network, torch.tensor(X)).parts == ("trunk",)
    with pytest.raises(ValueError, match="`trunk` must be a submodule of `net`, such as 'trunk'"):
        BayesianNetwork(net, HEAD, trunk="body")
    with pytest.raises(TypeError, match="`trunk` must be a submodule of `net` or its name"):
        BayesianNetwork(net, HEAD, trunk=3)


class Skip(Net):
    """The head uses x as well as the output of the trunk."""

    def forward(self, x):
        return self.head(self.trunk(x) + x.sum(1, keepdim=True))


def skip():
    return Skip(nn.Sequential(nn.Linear(3, 4)))


def test_a_network_without_a_split_is_run_as_a_whole(monkeypatch):
    posterior = quick(network_of(skip))
    assert split_of(posterior.network, torch.tensor(X)) is None
    mean = posterior.predict(X, seed=0).mean
    without_split(monkeypatch)
    np.testing.assert_array_equal(posterior.predict(X, seed=0).mean, mean)


@pytest.mark.parametrize(
    ("make", "trunk", "frozen", "message"),
    [
        (skip, None, True, "`cache_features` needs a frozen trunk"),
        (skip, "trunk", True, "`trunk` 'trunk' must be all .* its head: the rest also uses x"),
        (dense, "trunk", False, "must have no parameters that are drawn or learned, got 'trunk"),
        (dense, None, False, "`cache_features` needs a frozen trunk"),
    ],
)
def test_what_cannot_be_cached_is_refused(make, trunk, frozen, message):
    network = BayesianNetwork(network_of(make, frozen=frozen).net, HEAD, trunk=trunk)
    with pytest.raises(ValueError, match=message):
        quick(network, cache_features=True)


def test_a_trunk_in_training_mode_is_not_cached():
    network = network_of(normalised)
    network.net.trunk.train()
    with pytest.raises(ValueError, match=r"'trunk\.1', a BatchNorm1d, is in training mode: call"):
        quick(network, cache_features=True)


def test_a_loader_cannot_be_cached():
    rows = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = torch.utils.data.DataLoader(rows, batch_size=5)
    with pytest.raises(ValueError, match="`cache_features` needs x as arrays or files, got a"):
        fit(network_of(dense), loader, n_data=23, cache_features=True)


def test_classes_are_fitted_on_cached_features(caplog):
    labels = (X[:, 0] > 0).astype(int)
    network = network_of(lambda: Net(dense().trunk, 2), likelihood=Categorical())
    with caplog.at_level(logging.INFO, "pyrobbb"):
        posterior = fit(network, X, labels, epochs=3, progress=False, seed=0, cache_features=True)
    assert "The trunk trunk runs once on 23 rows." in caplog.text
    assert posterior.predict(X, seed=0).probs.shape == (23, 2)


class MaskedTrunk(nn.Module):
    def __init__(self, uses_mask):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        self.head = nn.Linear(3, 1)
        self.uses_mask = uses_mask

    def forward(self, ids, mask):
        features = self.trunk(ids * mask)
        return {"logits": self.head(features * mask[:, :3] if self.uses_mask else features)}


@pytest.mark.parametrize("uses_mask", [False, True])
def test_the_trunk_of_a_mapping_is_found_unless_the_head_uses_more_of_it(uses_mask):
    torch.manual_seed(0)
    net = MaskedTrunk(uses_mask)
    net.trunk.requires_grad_(False)
    network = BayesianNetwork(net, HEAD, output="logits")
    mask = torch.ones(20, 4)
    mask[7:, 1] = 0  # the first rows, with which trunk and head are tried, have the same mask
    x, y = {"ids": torch.randn(20, 4), "mask": mask}, torch.randn(20, 1)
    posterior = fit(network, x, y, epochs=2, seed=0, progress=False)
    same_masks = {name: array[:5] for name, array in x.items()}
    posterior.predict(same_masks, 3, seed=1)  # which does not show whether the head uses the mask
    calls = []
    handle = posterior.network.net.trunk.register_forward_hook(lambda *_: calls.append(1))
    mean = posterior.predict(x, 30, seed=1).mean
    handle.remove()
    draws = posterior.draws(30, 1)
    outputs = torch.stack(
        [
            torch.func.functional_call(
                posterior.network.net, {n: draws[n][i] for n in ("head.weight", "head.bias")}, (), x
            )["logits"]
            for i in range(30)
        ]
    )
    torch.testing.assert_close(mean, outputs.mean(0).detach(), rtol=1e-5, atol=1e-6)
    assert (split_of(posterior.network, x) is None) == uses_mask
    if not uses_mask:
        cached = fit(network, x, y, epochs=2, seed=0, progress=False, cache_features=True)
        torch.testing.assert_close(cached.predict(x, 30, seed=1).mean, mean, rtol=1e-4, atol=1e-5)


def test_the_code_on_trunks_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "trunks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_rows_of_a_form_that_was_predicted_before_do_not_run_the_trunk_in_trials(monkeypatch):
    posterior = quick(network_of(dense))
    posterior.predict(X, seed=0)
    rows, original = [], torch.nn.functional.relu
    monkeypatch.setattr(
        torch.nn.functional, "relu", lambda x, **kw: rows.append(len(x)) or original(x, **kw)
    )
    again = posterior.predict(X + 1, seed=0)
    assert rows == [len(X)]
    np.testing.assert_allclose(again.mean, posterior.predict(X + 1, seed=0).mean)
    with pytest.raises(ValueError, match=r"`x` with .* does not fit the network"):
        posterior.predict(X[:, :2])
    assert rows == 2 * [len(X)]


class Tokens(nn.Module):
    """A trunk that embeds tokens, and a head."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 1)

    def forward(self, tokens):
        return self.head(torch.tanh(self.embed(tokens)).mean(1))


def test_a_trunk_of_tokens_is_not_run_to_check_them_and_a_wrong_token_is_named(monkeypatch):
    tokens = RNG.integers(0, 9, size=(40, 5))
    posterior = fit(
        network_of(Tokens),
        tokens,
        tokens.mean(1, keepdims=True).astype("f"),
        epochs=2,
        engine="fused",
        seed=1,
        progress=False,
    )
    posterior.predict(tokens, seed=0)
    rows, original = [], torch.nn.functional.embedding
    monkeypatch.setattr(
        torch.nn.functional,
        "embedding",
        lambda x, *args: rows.append(len(x)) or original(x, *args),
    )
    posterior.predict(tokens[::-1].copy(), seed=0)
    assert rows == [40]
    for row, message in ((0, "index out of range"), (31, "the network cannot take, row 31")):
        wrong = tokens.copy()
        wrong[row, 2] = 9
        with pytest.raises(ValueError, match=message):
            posterior.predict(wrong, seed=0)
