"""What a session shows of networks and results: a few lines of text, or a plain HTML table."""

import html.parser
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from support import X, Y, noisy_sine, posterior_of, quick_fit, shared_fit, small_network
from torch import nn

from pyrobbb import BayesianNetwork, BBBClassifier, crosscheck, last_layer, mlp, priors, sbc
from pyrobbb._core.display import Listing
from pyrobbb.comparisons.cross_check import Comparison, CrossCheck
from pyrobbb.fitted import History


class Checker(html.parser.HTMLParser):
    """Checks that tags are closed and that none sets a colour or runs a script."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in {"div", "strong", "table", "tr", "th", "td"}
        assert attrs == []
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def deep_network():
    names = {f"{2 * i}.weight": priors.Normal(i + 1.0) for i in range(4)}
    return BayesianNetwork(mlp(3, [4] * 40, 1), priors.ByName(names, default=priors.Laplace()))


def wide_classes():
    network = small_network(12, likelihood="categorical")
    return quick_fit(network, y=np.arange(23) % 12, epochs=1).predict(X, 5, seed=0)


def custom(output):
    return torch.distributions.Normal(output, 1.0)


SHOWN = {
    "network": (small_network, ["21 weights", "0.weight", "4 x 3", "ScaleMixture", "Gaussian"]),
    "deep network": (deep_network, ["Normal(scale=2.0", "Laplace", "and 63 more rows"]),
    "learned scales and point values": (
        lambda: small_network(
            prior=priors.ByName({"*.bias": None}, default=priors.Normal("learned"))
        ),
        ["0.weight_scale", "learned scale", "none: a point value"],
    ),
    "network of one's own": (
        lambda: BayesianNetwork(nn.LSTM(3, 1), output=lambda out: out[0], likelihood=custom),
        ["BayesianNetwork of LSTM", "weight_ih_l0"],
    ),
    "posterior": (lambda: shared_fit(restarts=2), ["2 chains", "21 weights", "MeanFieldGuide"]),
    "chain": (lambda: shared_fit(restarts=2).chains[0], ["1 chain", "fused", "12"]),
    "many chains": (lambda: quick_fit(epochs=1, restarts=25), ["25 chains", "and 5 more rows"]),
    "last layer": (lambda: last_layer(mlp(3, [4], 1).double(), X, Y), ["DenseGuide"]),
    "history": (lambda: shared_fit().history, ["12 steps in 4 epochs", "nelbo", "kl"]),
    "history of validation": (
        lambda: quick_fit(validation=(X, Y), epochs=30).history,
        ["30 epochs", "validation nll"],
    ),
    "history without steps": (lambda: History(*np.empty((3, 0)), *np.empty((2, 0), int)), ["0 st"]),
    "regression": (lambda: shared_fit().predict(X, 5, seed=0), ["23 rows, 5 draws", "and 18 more"]),
    "classes": (wide_classes, ["label", "p_6", "more columns in to_frame()"]),
    "diagnosis": (
        lambda: shared_fit().diagnose(X, Y, n_draws=100, seed=0),
        ["ELBO", "verdict", "print(diagnosis)"],
    ),
    "crosscheck": (
        lambda: crosscheck(small_network(), X, Y, n_steps=2, n_draws=10),
        ["gradient of rho", "All 17 comparisons agree."],
    ),
    "sbc": (
        lambda: sbc(small_network(), X, n_sims=1, n_draws=5, epochs=1, seed=0, progress=False),
        ["1 simulation", "noise_scale"],
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_result_shows_itself_in_fewer_than_30_lines_and_in_plain_html(name):
    make, words = SHOWN[name]
    result = make()
    text = repr(result)
    assert text.count("\n") < 29
    assert max(map(len, text.splitlines())) < 200
    assert all(word in text for word in words), text
    for shown in (text, str(result)):
        assert not any(dump in shown for dump in ("DataTree", "tensor(", "array(")), shown
    assert all(word in " ".join(Checker(result._repr_html_()).words) for word in words[:1])


def test_what_a_user_names_is_escaped():
    net = nn.ModuleDict({"<script>": nn.Linear(3, 1)})
    net.forward = net["<script>"].forward
    shown = BayesianNetwork(net)._repr_html_()
    assert "&lt;script&gt;.weight" in shown
    Checker(shown)
    x, y = noisy_sine(30)
    labels = np.where(y[:, 0] > 0, "<b>up", "down & out")
    model = BBBClassifier(epochs=1, restarts=1, n_draws=5).fit(x, labels)
    frame = pd.DataFrame(x, columns=["x"], index=[f"<i>{i}" for i in range(30)])
    with pytest.warns(UserWarning, match="feature names"):
        Checker(model.predict_distribution(frame)._repr_html_())


def test_an_interrupted_chain_says_so():
    chain = shared_fit().chains[0]
    settings = replace(chain.settings, is_interrupted=True)
    shown = repr(posterior_of(chain.network, chain.guide, chain.history, chain.example, settings))
    assert "12 (interrupted)" in shown


def test_a_prediction_computes_only_the_rows_that_it_shows():
    prediction = shared_fit().predict(np.zeros((10**5, 3)), 100, seed=0)
    chunks = prediction._distributions
    repr(prediction)
    assert list(chunks._cached) == [0]
    assert len(prediction) == 10**5


def test_a_long_cell_is_cut_in_text_and_whole_in_html():
    listing = Listing("title", ("a",), [("word " * 50,)])
    assert max(map(len, listing.text().splitlines())) < 70
    assert listing.html().count("word") == 50


# The lines of listings: at most 20 rows, whatever is listed


def lines_of(result):
    text = repr(result)
    assert text.count("\n") < 29, text
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("n_epochs", [1, 7, 8, 9, 1000])
def test_a_history_lists_at_most_8_epochs_with_the_means_of_their_steps(n_epochs):
    rng = np.random.default_rng(0)
    epoch = np.repeat(np.arange(n_epochs), 3)
    nll, kl, n_rows = rng.normal(size=len(epoch)), rng.normal(size=len(epoch)), [5, 5, 2] * n_epochs
    history = History(nll + kl, nll, kl, epoch, np.array(n_rows))
    title, header, *rows, _ = lines_of(history)
    assert title[1] == f"{3 * n_epochs:,}"
    assert header == ["epoch", "nelbo", "nll", "kl"]
    assert len(rows) == min(n_epochs, 8)
    assert [rows[0][0], rows[-1][0]] == ["1", str(n_epochs)]
    for number, *values in rows:
        steps = slice(3 * int(number) - 3, 3 * int(number))
        means = [np.average(v[steps], weights=[5, 5, 2]) for v in (nll + kl, nll, kl)]
        np.testing.assert_allclose([float(value) for value in values], means, rtol=1e-4)


@pytest.mark.parametrize("n_wrong", [0, 1, 30])
def test_a_cross_check_of_many_comparisons_lists_those_that_differ_first(n_wrong):
    comparisons = [
        Comparison(f"gradient {i}", "pyro", 1.0, 2.0 if i < n_wrong else 0.1, 0.5)
        for i in reversed(range(50))
    ]
    check = CrossCheck(tuple(comparisons), ("a note",))
    title, _, *rows = lines_of(check)
    assert title == ["CrossCheck"]
    assert len(rows) == 20 + 3
    assert sum(row[-1] == "DIFFERS" for row in rows) == min(n_wrong, 20)
    assert all(row[-1] == "DIFFERS" for row in rows[: min(n_wrong, 20)])
    assert rows[20] == ["...", "and", "30", "more", "rows"]
    said = f"{n_wrong} of 50 comparisons DIFFER." if n_wrong else "All 50 comparisons agree."
    assert " ".join(rows[-1]) == said


@pytest.mark.parametrize("n_layers", [1, 9, 10, 60])
@pytest.mark.parametrize("prior", [priors.Normal(1.0), priors.Normal("learned")])
def test_a_network_lists_at_most_20_sites_and_counts_all(n_layers, prior):
    network = BayesianNetwork(mlp(3, [4] * (n_layers - 1), 1), prior)
    sites = network.latent_sites()
    title, _, *rows = lines_of(network)
    n_weights = sum(parameter.numel() for parameter in network.net.parameters())
    assert f"{n_weights:,} weights in {2 * n_layers:,} sites" in " ".join(title)
    assert len(rows) == min(len(sites), 20) + (len(sites) > 20) + 1
    shown = rows[: min(len(sites), 20)]
    is_learned = len(network.learned_scales()) > 0
    names = [
        name
        for parameter, _ in network.bayesian_parameters()
        for name in (parameter, f"{parameter}_scale")[: 1 + is_learned]
    ]
    assert [row[0] for row in shown] == [*names, "noise_scale"][:20]
    assert rows[-1][0] == "likelihood:"
    if len(sites) > 20:
        assert rows[20] == f"... and {len(sites) - 20} more rows".split()


def test_long_names_and_priors_do_not_make_long_lines():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            inner = nn.Linear(3, 1)
            for _ in range(40):
                inner = nn.ModuleDict({"encoder": inner})
            self.inner = inner

        def forward(self, x):
            (layer,) = (m for m in self.modules() if isinstance(m, nn.Linear))
            return layer(x)

    shown = repr(
        BayesianNetwork(Deep(), priors.ByName({"*.weight": priors.Laplace(1 / 3)}, priors.Normal()))
    )
    assert max(map(len, shown.splitlines())) < 200
