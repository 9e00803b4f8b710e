"""Sequences of different lengths: packed for an LSTM, and masked in transformers.

A draw at a time, the predictions are those of torch; and padding has no effect on them.
"""

import copy
import functools

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from pyrobbb import BayesianNetwork, FusedELBO, MeanFieldGuide, Posterior, fit
from pyrobbb.likelihoods import Gaussian
from pyrobbb.priors import Normal

LENGTHS = torch.tensor([3, 5, 1, 4, 5, 2, 4])

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*enable_nested_tensor:", "ignore:.*(nested tensors|NestedTensors):UserWarning"
)


class PackedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, input_ids, lengths):
        packed = pack_padded_sequence(
            self.embedding(input_ids), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)
        return self.head(last[-1])


class MaskedEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(4, 2)

    def forward(self, input_ids, src_key_padding_mask):
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=src_key_padding_mask)
        return self.head(hidden[:, 0])


class Attention(nn.Module):
    """Attention as in a language model: `attention_mask` is 1 for tokens; it returns a mapping."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.products = nn.Linear(4, 12)
        self.head = nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask=None):
        q, k, v = self.products(self.embedding(input_ids)).chunk(3, -1)
        mask = attention_mask[:, None, :] == 1
        hidden = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        weight = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return {"loss": None, "logits": self.head(mean), "hidden_states": (hidden,)}


def lengths_of(n_tokens):
    return {"lengths": LENGTHS}


def padding_of(n_tokens):
    return {"src_key_padding_mask": torch.arange(n_tokens) >= LENGTHS[:, None]}


def attention_of(n_tokens):
    return {"attention_mask": (torch.arange(n_tokens) < LENGTHS[:, None]).long()}


KINDS = {
    "packed LSTM": (PackedLSTM, lengths_of, None),
    "masked encoder": (MaskedEncoder, padding_of, None),
    "attention mask": (Attention, attention_of, "logits"),
}


def network_of(kind):
    net, _, output = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BayesianNetwork(net(), Normal(), Gaussian(0.5), output=output)


def inputs_of(kind, n_tokens=5, pad=0):
    """Return sequences of random tokens, padded to a length."""
    tokens = torch.randint(1, 10, (7, 5), generator=torch.Generator().manual_seed(1))
    tokens = functional.pad(tokens, (0, n_tokens - 5))
    tokens = torch.where(torch.arange(n_tokens) < LENGTHS[:, None], tokens, pad)
    return {"input_ids": tokens, **KINDS[kind][1](n_tokens)}


Y = torch.randn((7, 2), generator=torch.Generator().manual_seed(2))


def fitted(kind, **options):
    defaults = {"epochs": 3, "batch_size": 4, "engine": "fused", "seed": 0, "progress": False}
    return fit(network_of(kind), inputs_of(kind), Y, **{**defaults, **options})


@functools.cache
def posterior_of(kind):
    return fitted(kind)


def outputs_one_by_one(kind, posterior, x, n_draws, seed):
    """Return the outputs of new modules that have the draws as their parameters."""
    outputs = []
    draws = posterior.draws(n_draws, seed)
    for i in range(n_draws):
        net = copy.deepcopy(network_of(kind).net).eval()
        net.load_state_dict({name: value[i] for name, value in draws.items()})
        with torch.no_grad():
            output = net(**x)
        outputs.append(output if KINDS[kind][2] is None else output[KINDS[kind][2]])
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_the_module_with_each_draw(kind):
    x = inputs_of(kind)
    prediction = posterior_of(kind).predict(x, 6, seed=3)
    expected = outputs_one_by_one(kind, posterior_of(kind), x, 6, 3)
    torch.testing.assert_close(prediction.mean, expected.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        prediction.epistemic_sd, expected.std(0, correction=0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_effect_on_predictions(kind):
    means = [
        posterior_of(kind).predict(inputs_of(kind, n_tokens, pad), 6, seed=3).mean
        for n_tokens, pad in ((5, 0), (5, 7), (8, 0))
    ]
    for mean in means[1:]:
        torch.testing.assert_close(mean, means[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_loss_and_its_gradients_are_those_of_trace_elbo(kind):
    results = []
    for elbo in (Trace_ELBO(), FusedELBO()):
        network = network_of(kind).double()
        guide = MeanFieldGuide(network, init_scale=0.1)
        pyro.set_rng_seed(3)
        loss = elbo.differentiable_loss(network, guide, inputs_of(kind), Y.double(), 20)
        loss.backward()
        results.append([loss.detach(), guide.loc.grad, guide.rho.grad])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_svi_and_several_chains_fit_finite_losses(kind):
    for options in ({"engine": "svi"}, {"restarts": 2, "n_particles": 2}):
        posterior = fitted(kind, **options)
        for chain in posterior.chains:
            assert bool(torch.tensor(chain.history.nelbo).isfinite().all())
    first = fitted(kind, n_particles=2)
    torch.testing.assert_close(first.guide.loc, posterior.chains[0].guide.loc, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihoods_are_those_of_the_draws_one_by_one(kind, tmp_path):
    posterior, x = posterior_of(kind), inputs_of(kind)
    tree = posterior.to_arviz(x, Y, n_draws=4, seed=5)
    outputs = outputs_one_by_one(kind, posterior, x, 4, 5)
    expected = torch.distributions.Normal(outputs, 0.5).log_prob(Y).sum(-1)
    values = torch.tensor(tree["log_likelihood"]["y"].values[0])
    torch.testing.assert_close(values, expected.double(), rtol=1e-4, atol=1e-4)
    posterior.save(tmp_path / "kept")
    loaded = Posterior.load(tmp_path / "kept", network_of(kind))
    assert torch.equal(loaded.predict(x, 4, 5).mean, posterior.predict(x, 4, 5).mean)


def test_a_token_that_the_embedding_lacks_is_named_by_its_row():
    x = inputs_of("attention mask")
    x["input_ids"][5, 0] = 11
    with pytest.raises(ValueError, match="`x` has a row that the network cannot take, row 5"):
        fit(network_of("attention mask"), x, Y, progress=False)


def test_a_packed_lstm_is_not_compiled():
    with pytest.warns(RuntimeWarning, match="taken by engine='fused': "):
        posterior = fitted("packed LSTM", engine="compiled")
    assert posterior.settings.engine == "fused"
    torch.testing.assert_close(posterior.guide.loc, posterior_of("packed LSTM").guide.loc)
