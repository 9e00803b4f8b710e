"""Adapters: priors on the low-rank factors of a frozen network, by hand and by `peft`."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, fit, priors
from pyrobbb.elbo.fused_loss import FusedLoss
from pyrobbb.likelihoods import Categorical
from pyrobbb.training.restarts import fresh_start

RANK, ALPHA, N_WORDS, WIDTH, N_CLASSES = 2, 6.0, 9, 4, 3
ADAPTED = ("query", "value")
PRIOR = priors.ByName({"*lora_A*": priors.Normal(0.5), "*lora_B*": priors.Normal(0.3)}, None)
RNG = np.random.default_rng(0)
X = RNG.integers(0, N_WORDS, (24, 5))
Y = X.sum(1) % N_CLASSES


class Reader(nn.Module):
    """A classifier of words: embedding, attention, layer norm and a head."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(N_WORDS, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, N_CLASSES)

    def forward(self, words):
        x = self.embedding(words)
        attended = functional.scaled_dot_product_attention(
            self.query(x), self.key(x), self.value(x)
        )
        return self.head(self.norm(x + attended).mean(1))


class Adapted(nn.Module):
    """A linear layer with an adapter of low rank."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.Linear(base_layer.in_features, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, base_layer.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base_layer(x) + ALPHA / RANK * self.lora_B(self.lora_A(x))


def reader():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Reader().double().requires_grad_(False)


def by_hand():
    net = reader()
    for name in ADAPTED:
        net.set_submodule(name, Adapted(getattr(net, name)).double())
        getattr(net, name).base_layer.requires_grad_(False)
    return net


def by_peft():
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(ADAPTED))
    return peft.get_peft_model(reader(), config).double()


MAKERS = {"by hand": by_hand, "by peft": by_peft}
all_adapters = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def network_of(make):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return BayesianNetwork(make().eval(), PRIOR, Categorical())


def quick(network, **options):
    defaults = {"epochs": 3, "batch_size": 10, "seed": 1, "progress": False}
    return fit(network, X, Y, **{**defaults, **options})


def output_by_hand(values):
    """Return the output of the network without adapters, whose weights include them."""
    net, weights = reader(), {}
    for layer in ADAPTED:
        a, b = (
            next(v for name, v in values.items() if f"{layer}.{part}" in name)
            for part in ("lora_A", "lora_B")
        )
        weights[f"{layer}.weight"] = getattr(net, layer).weight + ALPHA / RANK * b @ a
    return torch.func.functional_call(net, weights, torch.tensor(X))


@all_adapters
def test_loss_and_gradient_of_a_step_are_those_of_a_loop_by_hand(make):
    network = network_of(make)
    guide = MeanFieldGuide(network, init_scale=0.2)
    noise = torch.randn(guide.loc.shape, dtype=torch.float64)
    step = FusedLoss(network, guide, closed_form_kl=True)(
        (guide.loc, guide.rho), (), noise, torch.tensor(X), torch.tensor(Y), data_weight=2.0
    )
    loc, rho = (p.detach().clone().requires_grad_() for p in (guide.loc, guide.rho))
    scale = functional.softplus(rho)
    values = guide.split(loc + scale * noise)
    nll = 2.0 * functional.cross_entropy(output_by_hand(values), torch.tensor(Y), reduction="sum")
    kl = 0.0
    for name, mean, sd in zip(
        values, guide.split(loc).values(), guide.split(scale).values(), strict=True
    ):
        prior_sd = 0.5 if "lora_A" in name else 0.3
        kl += ((prior_sd / sd).log() + (sd**2 + mean**2) / (2 * prior_sd**2) - 0.5).sum()
    d_loc, d_rho = torch.autograd.grad(nll + kl, (loc, rho))
    for ours, expected in zip(
        (step.nll, step.kl, step.d_loc, step.d_rho), (nll, kl, d_loc, d_rho), strict=True
    ):
        torch.testing.assert_close(ours, expected.detach(), rtol=1e-10, atol=1e-10)


@all_adapters
@pytest.mark.parametrize("engine", ["fused", "svi"])
def test_predictions_are_those_of_the_network_with_drawn_adapters_merged_into_it(make, engine):
    posterior = quick(network_of(make), engine=engine)
    draws = posterior.draws(7, seed=0)
    probs = torch.stack(
        [output_by_hand({n: d[i] for n, d in draws.items()}).softmax(-1) for i in range(7)]
    )
    ours = posterior.predict(X, n_draws=7, seed=0).probs
    np.testing.assert_allclose(ours, probs.mean(0), rtol=1e-10)


@all_adapters
def test_only_the_adapters_are_drawn_and_the_base_is_shared_and_unchanged(make):
    network = network_of(make)
    posterior = quick(network, restarts=2)
    names = [name for name, _ in network.bayesian_parameters()]
    assert len(names) == 2 * len(ADAPTED)
    assert all("lora_A" in name or "lora_B" in name for name in names)
    assert network.point_parameters() == []
    before = dict(network.net.named_parameters())
    for chain in posterior.chains:
        for name, parameter in chain.network.net.named_parameters():
            assert (parameter is before[name]) == (name not in names)
    base = {k.split("model.")[-1].replace(".base_layer", ""): p for k, p in before.items()}
    for name, parameter in reader().named_parameters():
        assert torch.equal(base[name], parameter)


@all_adapters
def test_the_adapters_are_stored_and_the_base_by_its_hash(make, tmp_path):
    posterior = quick(network_of(make))
    posterior.save(tmp_path / "adapters")
    loaded = Posterior.load(tmp_path / "adapters", network_of(make))
    expected = posterior.predict(X, seed=0).probs
    np.testing.assert_array_equal(loaded.predict(X, seed=0).probs, expected)
    from safetensors import safe_open

    (file,) = (tmp_path / "adapters").glob("*.safetensors")
    with safe_open(file, "pt") as tensors:
        stored = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    n_frozen = sum(len(t) > 0 and t.dtype == torch.uint8 for t in stored.values())
    n_stored = sum(t.numel() for t in stored.values() if t.is_floating_point() and t.dim() > 1)
    adapters = posterior.network.bayesian_parameters()
    assert n_frozen >= len(list(reader().parameters()))
    assert n_stored == sum(p.numel() for _, p in adapters)
    other = network_of(make)
    with torch.no_grad():
        next(p for n, p in other.net.named_parameters() if "key" in n).add_(1.0)
    with pytest.raises(ValueError, match=r"key\.weight' differs from that of the fit"):
        Posterior.load(tmp_path / "adapters", other)


@all_adapters
def test_adapters_keep_their_names_in_arviz(make):
    network = network_of(make)
    tree = quick(network).to_arviz(X, Y, n_draws=5, seed=0)
    names = [name for name, _ in network.bayesian_parameters()]
    assert set(names) <= set(tree["posterior"].data_vars)
    assert any(name.endswith("query.lora_A.weight") for name in names) or any(
        name.endswith("query.lora_A.default.weight") for name in names
    )


@all_adapters
def test_a_restart_begins_at_the_base_network(make):
    fresh = fresh_start(network_of(make), 5)
    with torch.no_grad():
        output = fresh.net(torch.tensor(X))
        torch.testing.assert_close(output, reader()(torch.tensor(X)))
    starts = [
        next(p for n, p in network.net.named_parameters() if "lora_A" in n)
        for network in (network_of(make), fresh)
    ]
    assert not torch.equal(*starts)


def by_transformers():
    peft = pytest.importorskip("peft", reason="needs the extra peft")
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=N_WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=5,
        num_labels=N_CLASSES,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = BertForSequenceClassification(config).double()
        lora = peft.LoraConfig(r=RANK, target_modules=["query", "word_embeddings"])
        return peft.get_peft_model(base, lora).double()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("make", [by_hand, by_peft, by_transformers])
@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_draws_for_each_row_have_the_expected_loss_and_gradients_of_shared_draws(make, estimator):
    net = make()
    net.eval()
    drawn = ("lora_", "embedding.weight", "norm.", "LayerNorm")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(any(part in name for part in drawn))
    output = "logits" if make is by_transformers else None
    network = BayesianNetwork(net, priors.Normal(0.5), Categorical(), output=output)
    guide = MeanFieldGuide(network, init_scale=0.3)
    n_rows, n_copies, n_steps = 4, 5, 40
    x, y = (torch.tensor(data[:n_rows]).repeat(n_copies, *[1] * (data.ndim - 1)) for data in (X, Y))

    def mean_and_error(estimator):
        is_shared = estimator == "reparam"
        loss = FusedLoss(network, guide, closed_form_kl=True, estimator=estimator)
        values, weight = (guide.loc.detach(), guide.rho.detach()), 1 if is_shared else 1 / n_copies
        rows = n_rows if is_shared else n_rows * n_copies
        steps = []
        torch.manual_seed(0)
        for _ in range(n_steps):
            noise = loss.noise(n_copies if is_shared else 1)
            inputs = {"input_ids": x[:rows]} if output else x[:rows]
            step = loss(values, (), noise, inputs, y[:rows], data_weight=weight)
            steps.append(torch.cat([step.nll.reshape(1), step.d_loc, step.d_rho]))
        steps = torch.stack(steps)
        return steps.mean(0), steps.std(0) / len(steps) ** 0.5

    (ours, our_error), (expected, error) = map(mean_and_error, (estimator, "reparam"))
    assert ((ours - expected).abs() < 6 * (our_error**2 + error**2).sqrt() + 1e-12).all()
    assert (our_error[1:] > 0).sum() > 0.5 * len(guide.loc)
