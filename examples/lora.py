"""Make the LoRA adapters of a transformer Bayesian, on sentences of an artificial language.

A small encoder is trained on one dialect and frozen. Its adapters are fitted to a few sentences of
another dialect, as point values and as a posterior, and their predictions are compared. If `peft`
is installed (`pip install "pyrobbb[peft]"`), the adapters are its own and the encoder is a small
BERT with random weights; otherwise both are written in torch. Nothing is downloaded.
"""

import argparse
import logging
import warnings
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pyrobbb import BayesianNetwork, fit, priors
from pyrobbb.likelihoods import Categorical

N_WORDS, LENGTH, WIDTH, RANK, ALPHA = 40, 12, 32, 4, 8
HAS_PEFT = bool(find_spec("peft") and find_spec("transformers"))


class Encoder(nn.Module):
    """A layer of attention over words, of linear layers that adapters can replace."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(N_WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, input_ids):
        x = self.words(input_ids) + self.places.weight
        query, key, value = self.query(x), self.key(x), self.value(x)
        x = self.first(x + functional.scaled_dot_product_attention(query, key, value))
        x = self.second(x + self.narrow(functional.gelu(self.wide(x))))
        return {"logits": self.classifier(x.mean(1))}


class Adapted(nn.Module):
    """A linear layer with an adapter: lora_B is 0 at first, so the layer is unchanged."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + ALPHA / RANK * self.lora_B(self.lora_A(x))


def encoder():
    """Return an encoder with random weights: a BERT if `transformers` is installed."""
    if not HAS_PEFT:
        return Encoder()
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=N_WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def with_adapters(net):
    """Return a network whose own weights are frozen, with adapters for query and value."""
    net.requires_grad_(False)
    if HAS_PEFT:
        from peft import LoraConfig, get_peft_model

        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # peft calls it
        return get_peft_model(
            net, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["query", "value"])
        )
    net.query, net.value = Adapted(net.query), Adapted(net.value)
    return net


def sentences(n, dialect, seed):
    """Return word ids, and labels that say whether a sentence has more warm than cold words.

    Words 0 to 9 are warm and 20 to 29 cold in dialect 0; in dialect 1, half of them are others. The
    label is drawn: it is noisy where a sentence has about as many of both.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, N_WORDS, (n, LENGTH))
    warm, cold = (np.arange(start + 5 * dialect, start + 10 + 5 * dialect) for start in (0, 20))
    difference = np.isin(ids, warm).sum(1) - np.isin(ids, cold).sum(1)
    return ids, (rng.random(n) < 1 / (1 + np.exp(-2.0 * difference))).astype(int)


def train(net, ids, labels, steps):
    """Train all weights that require a gradient by Adam, as one does without pyrobbb."""
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=0.01)
    x, y = torch.tensor(ids), torch.tensor(labels)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        functional.cross_entropy(net(input_ids=x[rows])["logits"], y[rows]).backward()
        optimizer.step()
    return net


@torch.no_grad()
def probabilities(net, ids):
    return net(input_ids=torch.tensor(ids))["logits"].softmax(-1).numpy()


def describe(name, probs, labels):
    log_loss = -np.log(probs[np.arange(len(labels)), labels]).mean()
    confidence, is_right = probs.max(1), probs.argmax(1) == labels
    bins = np.digitize(confidence, np.linspace(0.5, 1, 11)[1:-1])
    error = sum(abs((confidence - is_right)[bins == i].sum()) for i in range(10)) / len(labels)
    print(f"{name:24}  {is_right.mean():8.1%}  {log_loss:8.3f}  {error:17.3f}")


def main(base_steps=600, epochs=300, n_rows=80, n_test=2000):
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    torch.manual_seed(0)
    base = train(encoder(), *sentences(4000, 0, seed=0), base_steps).eval()
    ids, labels = sentences(n_rows, 1, seed=1)
    test_ids, test_labels = sentences(n_test, 1, seed=2)
    at_first = probabilities(base, test_ids)

    net = with_adapters(base).eval()
    prior = priors.ByName(
        {"*lora_A*": priors.Normal(0.3), "*lora_B*": priors.Normal(0.3)}, default=None
    )
    network = BayesianNetwork(net, prior, Categorical(), output="logits")
    n_bayesian = sum(parameter.numel() for _, parameter in network.bayesian_parameters())
    n_all = sum(parameter.numel() for parameter in net.parameters())
    print(f"adapters: {n_bayesian} of {n_all} weights, by {'peft' if HAS_PEFT else 'torch'}")
    posterior = fit(
        network,
        {"input_ids": ids},
        labels,
        epochs=epochs,
        batch_size=20,
        lr=0.01,
        estimator="local",
        seed=0,
        progress=False,
    )
    of_posterior = posterior.predict({"input_ids": test_ids}, n_draws=100, seed=0).probs
    of_points = probabilities(train(net, ids, labels, 4 * epochs), test_ids)  # changes `net`

    print(f"\n{n_rows} sentences of the new dialect, {n_test} to test")
    print(f"{'':24}  accuracy  log loss  calibration error")
    describe("base, without adapters", at_first, test_labels)
    describe("adapters as points", of_points, test_labels)
    describe("adapters as posterior", of_posterior, test_labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small budget")
    main(**({"base_steps": 20, "epochs": 2, "n_test": 100} if parser.parse_args().quick else {}))
