"""Draws per example: distribution of the outputs, unbiased gradients, and their variance."""

import pyro
import pytest
import torch
from modules import Tied
from torch import nn
from torch.nn import functional

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, likelihoods, mlp, priors
from pyrobbb.elbo.fused_loss import FusedLoss
from pyrobbb.elbo.gradient_estimators import PerExampleSampling, UsedAgainError
from pyrobbb.model.functional import FunctionalCall

N_DRAWS = 2000


class Convolutions(nn.Module):
    """Strided, padded and grouped convolutions, with and without bias, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.second = nn.Conv2d(4, 4, 2, groups=2, dilation=2, bias=False)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        hidden = torch.relu(self.second(torch.tanh(self.first(x))))
        return self.last(hidden.flatten(1))


class Averaged(nn.Module):
    """A perceptron for each step of a sequence, whose outputs are averaged."""

    def __init__(self):
        super().__init__()
        self.net = mlp(3, [4], 1, "tanh", seed=0)

    def forward(self, x):
        return self.net(x).mean(1)


class Siamese(nn.Module):
    """An encoder that is used twice."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = mlp(2, [3], 2, "tanh", seed=0), nn.Linear(2, 1)

    def forward(self, x):
        return self.head(self.encoder(x[:, :2]) - self.encoder(x[:, 2:]) * 0.5)


class TiedBias(nn.Module):
    """Layers that share a weight, and layers that share a bias."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.layers[1].weight = self.layers[0].weight
        self.layers[2].bias = self.layers[0].bias

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class Residual(nn.Module):
    """A block that is used three times."""

    def __init__(self):
        super().__init__()
        self.block, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x):
        for _ in range(3):
            x = x + torch.tanh(self.block(x))
        return self.head(x)


class OwnParameters(nn.Module):
    """Functional layers, called with keywords, on parameters that the module owns."""

    def __init__(self):
        super().__init__()
        self.weight, self.kernel = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 1, 2))
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        hidden = functional.linear(x, weight=self.weight, bias=self.bias.to(x.dtype))
        image = functional.conv1d(input=x[:, None], weight=self.kernel, stride=1, bias=None)
        return hidden.tanh() + image.sum(-1)


class Recurrent(nn.Module):
    """A recurrent cell of linear layers."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(2 + 3, 3), nn.Linear(3, 1)

    def forward(self, x):
        state = x.new_zeros(len(x), 3)
        for t in range(x.shape[1]):
            state = torch.tanh(self.cell(torch.cat([x[:, t], state], 1)))
        return self.head(state)


class Attention(nn.Module):
    """Attention between the steps of a sequence, and a layer that mixes the steps."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(2, 2, bias=i > 1) for i in range(3))
        self.mix = nn.Linear(4, 2)

    def forward(self, x):
        scores = torch.softmax(self.query(x) @ self.key(x).mT, -1)
        return self.mix((x + scores @ self.value(x)).mT).flatten(1)


class ConvolvedTwice(nn.Module):
    """A grouped convolution that is used twice, on images of different sizes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 2, groups=2)

    def forward(self, x):
        return self.conv(torch.tanh(self.conv(x))).mean(-1)


class Derivative(nn.Module):
    """The derivative of a perceptron with respect to its input."""

    def __init__(self):
        super().__init__()
        self.net = mlp(3, [4], 1, "tanh", seed=0)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]


class Tokens(nn.Module):
    """Words with padding, looked up once, positions that all rows share, and a layer norm."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(4, 3, padding_idx=0), nn.Embedding(5, 3)
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(3, 1)

    def forward(self, x):
        places = torch.arange(x.shape[1])[None]
        return self.head(self.norm(self.words(words_of(x)) + self.places(places)).mean(1))


class TiedWords(nn.Module):
    """An embedding that is looked up twice, and whose weight is also the head's."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(4, 3), nn.Linear(3, 4)
        self.head.weight = self.words.weight

    def forward(self, x):
        words = words_of(x)
        return self.head(torch.tanh(self.words(words).mean(1) - self.words(words[:, 0])))


class Normalised(nn.Module):
    """Norms of groups, of instances, by fixed statistics, and by the mean square."""

    def __init__(self):
        super().__init__()
        self.conv, self.group = nn.Conv1d(2, 4, 2), nn.GroupNorm(2, 4)
        self.instance = nn.InstanceNorm1d(4, affine=True)
        self.batch, self.mean_square = nn.BatchNorm1d(4).eval(), nn.RMSNorm(4)

    def forward(self, x):
        x = self.instance(torch.relu(self.group(self.conv(x))))
        return self.mean_square(1 + self.batch(x).square().mean(-1))


class Transformer(nn.Module):
    """An embedding, and an encoder layer with the steps of the sequence first."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.words = nn.Embedding(4, 2)
        self.encoder = nn.TransformerEncoderLayer(2, 1, 3, dropout=dropout)

    def forward(self, x):
        return self.encoder(self.words(words_of(x)).transpose(0, 1)).mean(0)


class Attending(nn.Module):
    """Attention of keys and values of other sizes than the queries', with a mask."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, kdim=1, vdim=3, batch_first=True)

    def forward(self, x):
        is_padding = torch.arange(4) > 1 + (x[:, :1, 0] > 0)
        query, key = x[..., :2], x[..., 2:]
        return self.attention(query, key, x, key_padding_mask=is_padding)[0].mean(1)


class TransposedWeight(nn.Module):
    """A weight that is used as it is and transposed."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3, 2))

    def forward(self, x):
        return torch.tanh(x @ self.weight) @ self.weight.T


def words_of(x):
    return (2 * x.abs()).long().clamp(max=3)


def fixed_rows(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


PER_TIME = nn.Sequential(nn.Conv1d(2, 3, 3, padding="same"), nn.ReLU(), nn.Conv1d(3, 1, 2))
CASES = {
    "linear": (lambda: mlp(3, [6], 1, seed=0), (12, 3)),
    "point bias": (lambda: mlp(3, [6], 1, seed=0), (12, 3)),
    "linear over time": (lambda: mlp(3, [4], 1, seed=0), (5, 4, 3)),
    "averaged over time": (Averaged, (5, 4, 3)),
    "siamese": (Siamese, (5, 4)),
    "tied weight": (Tied, (6, 3)),
    "tied bias": (TiedBias, (6, 3)),
    "shared block": (Residual, (6, 3)),
    "own parameters": (OwnParameters, (6, 3)),
    "recurrent": (Recurrent, (5, 4, 2)),
    "attention": (Attention, (4, 4, 2)),
    "derivative": (Derivative, (6, 3)),
    "conv2d": (Convolutions, (12, 2, 5, 5)),
    "conv1d": (lambda: PER_TIME, (12, 2, 4)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (8, 1, 2, 3, 2)),
    "convolved twice": (ConvolvedTwice, (5, 2, 5)),
    "tokens": (Tokens, (5, 4)),
    "tied words": (TiedWords, (5, 3)),
    "normalised": (Normalised, (5, 2, 5)),
}
SINGLE = {
    "transformer": (Transformer, (4, 3)),
    "attending": (Attending, (4, 4, 3)),
    "transposed": (TransposedWeight, (5, 3)),
}
"""Modules whose rows are run alone."""
RANDOM = {"dropout": (lambda: Transformer(dropout=0.1), (4, 3))}


class Candidate:
    def __init__(self, case):
        make, shape = {**CASES, **SINGLE, **RANDOM}[case]
        torch.manual_seed(0)
        net, self.x = make().double(), fixed_rows(*shape)
        prior = priors.Normal(1.0)
        if case == "point bias":
            prior = priors.ByName({"*.bias": None}, default=prior)
        likelihood = likelihoods.Gaussian() if case == "linear" else likelihoods.Gaussian(0.5)
        self.network = BayesianNetwork(net, prior, likelihood)
        self.guide = MeanFieldGuide(self.network, init_scale=0.4)
        self.y = torch.sin(net(self.x).detach() * 7)

    def step(self, estimator, *, n_copies=1, n_particles=1, closed_form_kl=True):
        """Return a function that takes a step: nll, KL divergence and gradients, flat."""
        loss = FusedLoss(
            self.network, self.guide, closed_form_kl=closed_form_kl, estimator=estimator
        )
        points = tuple(p.detach() for _, p in self.network.point_parameters())
        x, y = (t.repeat(n_copies, *(1,) * (t.dim() - 1)) for t in (self.x, self.y))

        def take():
            step = loss(
                (self.guide.loc, self.guide.rho),
                points,
                loss.noise(n_particles),
                x,
                y,
                data_weight=2.0 / n_copies,
                kl_weight=0.5,
            )
            gradients = [step.d_loc, step.d_rho, *(d.flatten() for d in step.d_points)]
            return torch.cat([step.nll[None], step.kl[None], *gradients])

        return take

    def steps(self, estimator, n_steps, **options):
        pyro.set_rng_seed(3)
        take = self.step(estimator, **options)
        with torch.no_grad():
            return torch.stack([take() for _ in range(n_steps)])

    def means(self, estimator):
        """Return the results of `step` averaged over independent parts of the draws."""
        if estimator == "flipout":  # copies of a row have the same draw but for its signs
            return self.steps(estimator, 400, n_copies=5)
        size = {"n_particles" if estimator == "reparam" else "n_copies": N_DRAWS // 20}
        return self.steps(estimator, 20, **size)

    def outputs(self, estimator):
        """Return the output of each row under many draws of `PerExampleSampling`."""
        n_copies = N_DRAWS if estimator == "local" else 1
        x = self.x.repeat(n_copies, *(1,) * (self.x.dim() - 1))
        loc, scale = self.guide.split(self.guide.loc), self.guide.split(self.guide.scale)
        names = [name for name, _ in self.network.bayesian_parameters()]
        by_id, reused = {id(loc[name]): name for name in names}, set()
        call = FunctionalCall(self.network.net, names)
        outputs = []
        with torch.no_grad():
            while len(outputs) * n_copies < N_DRAWS:
                try:
                    with PerExampleSampling(estimator, by_id, scale, len(x), reused):
                        outputs.append(call(loc, x).unflatten(0, (n_copies, -1)))
                except UsedAgainError as error:
                    reused |= error.names
        return torch.cat(outputs)

    def outputs_by_one_draw(self):
        with torch.no_grad():
            draws = [self.guide() for _ in range(N_DRAWS)]
            stacked = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
            return self.network.output(stacked, self.x)


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", CASES)
def test_the_output_of_each_row_has_the_mean_and_variance_of_the_posterior(case, estimator):
    pyro.set_rng_seed(1)
    candidate = Candidate(case)
    ours, expected = candidate.outputs(estimator), candidate.outputs_by_one_draw()
    gap = ours.mean(0) - expected.mean(0)
    standard_error = ((ours.var(0) + expected.var(0)) / N_DRAWS).sqrt()
    assert (gap.abs() < 5 * standard_error).all()
    # The relative error of a variance is sqrt((kurtosis - 1) / n); these tails are near-normal.
    assert ((ours.var(0) / expected.var(0)).log().abs() < 0.25).all()
    # The sum over the outputs of a row also depends on their correlations.
    ours, expected = (outputs.flatten(2).sum(-1).var(0) for outputs in (ours, expected))
    assert ((ours / expected).log().abs() < 0.25).all()


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", [*CASES, *SINGLE, *RANDOM])
def test_loss_and_gradients_have_the_same_expectation(case, estimator):
    candidate = Candidate(case)
    ours, expected = candidate.means(estimator), candidate.means("reparam")
    gap = ours.mean(0) - expected.mean(0)
    standard_error = (ours.var(0) / len(ours) + expected.var(0) / len(expected)).sqrt()
    assert (gap.abs() < 5 * standard_error + 1e-12).all()


@pytest.mark.parametrize("case", SINGLE)
def test_rows_that_are_run_alone_have_the_loss_and_gradient_of_a_loop_by_hand(case):
    candidate = Candidate(case)
    guide, x, y = candidate.guide, candidate.x, candidate.y
    take = candidate.step("local")
    take()  # the trial
    pyro.set_rng_seed(3)
    ours = take()
    pyro.set_rng_seed(3)
    FusedLoss(candidate.network, guide, estimator="local").noise(1)
    loc, scale = guide.loc.detach().requires_grad_(), guide.scale.detach().requires_grad_()
    locs, scales = guide.split(loc), guide.split(scale)
    noise = {n: torch.empty((len(x), *m.shape), dtype=x.dtype).normal_() for n, m in locs.items()}
    nll = 0.0
    for i, row in enumerate(x):
        draw = {name: mean + scales[name] * noise[name][i] for name, mean in locs.items()}
        output = torch.func.functional_call(candidate.network.net, draw, row[None])
        nll = nll - 2.0 * torch.distributions.Normal(output[0], 0.5).log_prob(y[i]).sum()
    nll.backward()
    torch.testing.assert_close(ours[0], nll.detach())
    # Of half the KL divergence from N(0, 1), and through the scale to rho.
    d_loc, d_scale = loc.grad + 0.5 * loc.detach(), scale.grad + 0.5 * (scale - 1 / scale).detach()
    d_rho = d_scale * torch.sigmoid(guide.rho.detach())
    torch.testing.assert_close(ours[2:], torch.cat([d_loc, d_rho]))


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_a_row_has_one_draw_of_a_word_that_it_looks_up_several_times(estimator):
    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(4, 2, padding_idx=2)

        def forward(self, x):
            return self.words(words_of(x))

    CASES["looked"] = Looked, (6, 9)
    candidate = Candidate("looked")
    del CASES["looked"]
    outputs, words = candidate.outputs(estimator), words_of(candidate.x)
    vectors = candidate.guide.split(candidate.guide.loc)["words.weight"].detach()
    deviations = (outputs - vectors[words])[:40]
    for row in range(len(words)):
        for word in words[row].unique():
            of_word = deviations[:, row, words[row] == word]
            assert torch.equal(of_word, of_word[:, :1].expand_as(of_word))
            assert bool((of_word == 0).all()) == (word == 2)  # padding
    first = deviations[:, words[:, 0] != 2, 0].flatten(1)  # of several rows: not the same
    assert len(first.unique()) > 40
    if estimator == "local":
        assert len(first.unique()) == first.numel()


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_the_variance_of_a_linear_average_over_time_is_the_analytic_one(estimator):
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(x).mean(1)

    CASES["mean"] = Mean, (4, 5, 3)
    candidate = Candidate("mean")
    del CASES["mean"]
    expected = 0.4**2 * ((candidate.x.mean(1) ** 2).sum(-1) + 1)
    ours = candidate.outputs(estimator).var(0)
    # The standard error of a normal variance, relative, is sqrt(2 / n).
    assert ((ours / expected[:, None] - 1).abs() < 5 * (2 / N_DRAWS) ** 0.5).all()


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_a_row_has_one_draw_for_both_uses_of_a_layer(estimator):
    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x) - self.layer(x[:, None])[:, 0]

    CASES["difference"] = Difference, (5, 2)
    candidate = Candidate("difference")
    del CASES["difference"]
    torch.testing.assert_close(
        candidate.outputs(estimator), torch.zeros(N_DRAWS, 5, 2).double(), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", ["linear", "conv2d"])
def test_gradients_are_less_noisy(case, estimator):
    candidate = Candidate(case)
    noise = {e: candidate.steps(e, 500)[:, 2:].var(0).sum() for e in (estimator, "reparam")}
    assert noise[estimator] < 0.9 * noise["reparam"]


def test_gradients_with_a_sampled_kl_divergence_are_unbiased():
    candidate = Candidate("linear")
    ours = candidate.steps("local", N_DRAWS, closed_form_kl=False)
    expected = candidate.steps("local", N_DRAWS)
    gap = ours.mean(0) - expected.mean(0)
    standard_error = ((ours.var(0) + expected.var(0)) / N_DRAWS).sqrt()
    assert (gap.abs() < 5 * standard_error + 1e-12).all()


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("case", [*CASES, *SINGLE])
def test_at_a_vanishing_scale_nll_and_gradient_in_loc_are_those_of_a_shared_draw(case, estimator):
    candidate = Candidate(case)
    network, guide = candidate.network, candidate.guide
    points = tuple(p.detach() for _, p in network.point_parameters())
    noise, rho = torch.zeros_like(guide.loc), torch.full_like(guide.rho, -30.0)
    expected, ours = (
        FusedLoss(network, guide, estimator=e)(
            (guide.loc.detach(), rho), points, noise, candidate.x, candidate.y
        )
        for e in ("reparam", estimator)
    )
    torch.testing.assert_close(ours.nll, expected.nll, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.d_loc, expected.d_loc, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.d_points, expected.d_points, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_gradients_at_an_input_of_zeros_are_finite(estimator):
    network = BayesianNetwork(nn.Linear(3, 1, bias=False), priors.Normal(1.0))
    posterior = fit(
        network, torch.zeros(5, 3), torch.ones(5, 1), epochs=3, estimator=estimator, progress=False
    )
    assert posterior.guide.loc.isfinite().all()
    assert posterior.guide.rho.isfinite().all()


@pytest.mark.parametrize("n_particles", [1, 2])
@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_fits_use_the_estimators_and_are_reproducible(estimator, n_particles):
    x = fixed_rows(20, 3)
    network = BayesianNetwork(mlp(3, [4], 1, seed=0).double())
    fits = [
        fit(
            network,
            x,
            x.sum(1, keepdim=True),
            epochs=4,
            batch_size=8,
            estimator=estimator,
            n_particles=n_particles,
            seed=0,
            progress=False,
        )
        for _ in range(2)
    ]
    assert fits[0].settings["engine"] == "fused"
    assert torch.equal(fits[0].guide.loc, fits[1].guide.loc)
    plain = fit(network, x, x.sum(1, keepdim=True), epochs=4, batch_size=8, seed=0, progress=False)
    assert not torch.equal(fits[0].guide.loc, plain.guide.loc)


def test_other_layers_may_have_point_parameters():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 1))
    network = BayesianNetwork(net, priors.ByName({"0.*": None}, default=priors.Normal(1.0)))
    x, y = torch.zeros((4, 2), dtype=torch.long), torch.zeros(4, 1)
    posterior = fit(network, x, y, epochs=1, estimator="local", progress=False)
    assert posterior.settings["engine"] == "fused"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": "dropout"}, "`estimator` must be one of reparam, local, flipout, got"),
        ({"estimator": "local", "engine": "svi"}, "`estimator` 'local' or 'flipout' needs engine"),
        (
            {"estimator": "local", "guide": "auto_normal"},
            "`estimator` 'local': the guide must be a",
        ),
    ],
)
def test_incompatible_options_raise(change, message):
    x = fixed_rows(5, 3)
    network = BayesianNetwork(mlp(3, [4], 1).double())
    with pytest.raises(ValueError, match=message):
        fit(network, x, x[:, :1], epochs=1, progress=False, **change)
