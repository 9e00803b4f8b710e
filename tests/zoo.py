"""The zoo: modules of torch.nn and common idioms, which `tests/test_zoo.py` takes through the API.

A module that once failed belongs here. Each entry makes the same module at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from pyrobbb import mlp
from pyrobbb.priors import ByName, Normal

N_ROWS = 7


@dataclass(frozen=True)
class Specimen:
    """A module, the inputs that it takes, and what is known of it.

    Attributes
    ----------
    make : callable
        Returns the module.
    row : tuple of int
        Shape of a row of x.
    n_tokens : int
        If positive, x holds integers from 0 to n_tokens - 1.
    prior : Prior
    mixes_rows, needs_all_rows, draws_numbers : bool
        As for `pyrobbb.model.trial.Traits`.
    """

    make: Callable[[], nn.Module]
    row: tuple[int, ...] = (4,)
    n_tokens: int = 0
    prior: Any = field(default_factory=Normal)
    mixes_rows: bool = False
    needs_all_rows: bool = False
    draws_numbers: bool = False

    def net(self) -> nn.Module:
        """Return the module, with the same parameters at each call."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.make()

    def x(self, seed: int = 1) -> Tensor:
        """Return inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.n_tokens:
            return torch.randint(self.n_tokens, (N_ROWS, *self.row), generator=generator)
        return torch.randn((N_ROWS, *self.row), generator=generator)


class Lambda(nn.Module):
    """A module that runs a function of itself and x, with submodules and parameters by name."""

    def __init__(self, function: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.3 * torch.randn(shape))


def seq(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def of(function: Callable[..., Tensor], **parts: Callable[[], Any]) -> Callable[[], nn.Module]:
    """Return a function that makes a `Lambda`, with new parts at each call."""
    return lambda: Lambda(function, **{name: make() for name, make in parts.items()})


# Functions of `Lambda` modules, at module level so that they can be pickled.


def gated(self: Any, x: Tensor) -> Tensor:
    return self.out(functional.glu(self.first(x), -1))


def bilinear(self: Any, x: Tensor) -> Tensor:
    return self.layer(x, torch.tanh(x))


def prelu(self: Any, x: Tensor) -> Tensor:
    return self.out(functional.prelu(self.first(x), self.slope))


def last_of_sequence(self: Any, x: Tensor) -> Tensor:
    states, _ = self.rnn(x)
    return self.out(states[:, -1])


def cell_loop(self: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 3)
    c = torch.zeros_like(h)
    for t in range(x.shape[1]):
        h, c = self.cell(x[:, t], (h, c))
    return self.out(h)


def stateful(self: Any, x: Tensor) -> Tensor:
    state = getattr(self, "state", None)
    states, self.state = self.rnn(x, state)
    return self.out(states[:, -1])


def mean_embedding(self: Any, x: Tensor) -> Tensor:
    return self.out(self.embedding(x).mean(1))


def sum_embedding(self: Any, x: Tensor) -> Tensor:
    return self.out(torch.tanh(self.embedding(x).sum(1)))


def tied_embedding(self: Any, x: Tensor) -> Tensor:
    return functional.linear(self.embedding(x).mean(1), self.embedding.weight)


def attention(self: Any, x: Tensor) -> Tensor:
    return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


def attention_of_products(self: Any, x: Tensor) -> Tensor:
    q, k, v = self.qkv(x).chunk(3, -1)
    return self.out(functional.scaled_dot_product_attention(q, k, v).mean(1))


def encoder(self: Any, x: Tensor) -> Tensor:
    return self.out(self.encoder(x).mean(1))


def decoder(self: Any, x: Tensor) -> Tensor:
    return self.out(self.decoder(x, torch.flip(x, (1,))).mean(1))


def twice(self: Any, x: Tensor) -> Tensor:
    return self.out(torch.tanh(self.shared(torch.tanh(self.shared(x)))))


def siamese(self: Any, x: Tensor) -> Tensor:
    left, right = (torch.tanh(self.encoder(half)) for half in x.chunk(2, -1))
    return self.out((left - right).abs())


def residual(self: Any, x: Tensor) -> Tensor:
    return self.out(x + torch.relu(self.layer(x)))


def looped(self: Any, x: Tensor) -> Tensor:
    for layer in self.layers:
        x = torch.tanh(layer(x))
    return x


def by_key(self: Any, x: Tensor) -> Tensor:
    return self.layers["out"](torch.tanh(self.layers["first"](x)))


def listed(self: Any, x: Tensor) -> Tensor:
    for weight in self.weights:
        x = torch.tanh(x @ weight)
    return x


def keyed(self: Any, x: Tensor) -> Tensor:
    return torch.tanh(x @ self.weights["a"]) @ self.weights["b"]


def temperature(self: Any, x: Tensor) -> Tensor:
    return self.layer(x) * self.scale.exp()


def with_einsum(self: Any, x: Tensor) -> Tensor:
    return torch.einsum("ni,ijk,nk->nj", x, self.core, torch.sin(x))


def transposed(self: Any, x: Tensor) -> Tensor:
    return x @ self.layer.weight.T + functional.linear(x, self.other.weight.t().t())


def spectral(self: Any, x: Tensor) -> Tensor:
    modes = torch.fft.rfft(x) * torch.complex(self.real, self.imaginary)
    return self.out(torch.fft.irfft(modes, n=x.shape[-1]))


def keeps_activations(self: Any, x: Tensor) -> Tensor:
    self.activations = torch.tanh(self.first(x))
    return self.out(self.activations)


def keeps_list(self: Any, x: Tensor) -> Tensor:
    h = torch.tanh(self.first(x))
    self.seen.append(h)
    return self.out(h) + len(self.seen) - 1


def counts_in_place(self: Any, x: Tensor) -> Tensor:
    self.count.add_(1)
    return self.layer(x) * (1 + 0.01 * self.count)


def assigns_buffer(self: Any, x: Tensor) -> Tensor:
    if self.training:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
    return self.layer(x - self.mean)


def writes_into_input(self: Any, x: Tensor) -> Tensor:
    x -= self.shift
    x.mul_(2)
    return self.layer(x)


def writes_some_columns(self: Any, x: Tensor) -> Tensor:
    x[:, 0] = 0
    return self.layer(x)


def functional_dropout(self: Any, x: Tensor) -> Tensor:
    return self.out(functional.dropout(torch.tanh(self.first(x)), 0.3))


def noisy(self: Any, x: Tensor) -> Tensor:
    return self.layer(x + 0.1 * torch.randn_like(x))


def centred(self: Any, x: Tensor) -> Tensor:
    h = torch.tanh(self.first(x))
    return self.out(h - h.mean(0))


def attention_over_rows(self: Any, x: Tensor) -> Tensor:
    return self.out(torch.softmax(x @ x.T, -1) @ x)


def graph(self: Any, x: Tensor) -> Tensor:
    return self.out(self.adjacency @ torch.relu(self.first(self.adjacency @ x)))


def branches(self: Any, x: Tensor) -> Tensor:
    layer = self.left if bool(self.layer_scale > 0) else self.right
    return layer(x) + self.left(x) + self.right(x) * self.layer_scale


def experts(self: Any, x: Tensor) -> Tensor:
    weights = torch.softmax(self.gate(x), -1)
    return sum(w[:, None] * e(x) for w, e in zip(weights.unbind(-1), self.experts, strict=True))


def euler(self: Any, x: Tensor) -> Tensor:
    for _ in range(5):
        x = x + 0.2 * torch.tanh(self.field(x))
    return self.out(x)


def fixed_point(self: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(10):
        z = torch.tanh(0.2 * self.layer(z) + x)
    return self.out(z)


def monotone(self: Any, x: Tensor) -> Tensor:
    return functional.linear(
        torch.tanh(functional.linear(x, functional.softplus(self.first.weight), self.first.bias)),
        functional.softplus(self.out.weight),
    )


def hypernetwork(self: Any, x: Tensor) -> Tensor:
    weight = self.hyper(self.code).reshape(2, 4)
    return functional.linear(x, weight)


def low_rank(self: Any, x: Tensor) -> Tensor:
    return self.base(x) + self.b(self.a(x))


def checkpointed(self: Any, x: Tensor) -> Tensor:
    return self.out(checkpoint(self.first, x, use_reentrant=False))


def unused_head(self: Any, x: Tensor) -> Tensor:
    return self.first(x)


def masked(self: Any, x: Tensor) -> Tensor:
    return functional.linear(x, self.layer.weight * self.mask, self.layer.bias)


def skip_connection(self: Any, x: Tensor) -> Tensor:
    down = functional.relu(self.down(x))
    up = functional.interpolate(down, scale_factor=2)
    return self.out(torch.cat([x, up], 1)).mean((2, 3))


def positions(self: Any, x: Tensor) -> Tensor:
    return self.out((self.layer(x) + self.position[: x.shape[1]]).mean(1))


def cached_positions(self: Any, x: Tensor) -> Tensor:
    if self.cache is None:
        self.cache = torch.arange(x.shape[1], dtype=x.dtype)[:, None]
    return self.out((self.layer(x) + self.cache).mean(1))


def of_modules_in_a_list(self: Any, x: Tensor) -> Tensor:
    first, out = self.order
    return out(torch.tanh(first(x)))


def by_bound_method(self: Any, x: Tensor) -> Tensor:
    return self.head(torch.tanh(self.body(x)))


def by_exponent(self: Any, x: Tensor) -> Tensor:
    return torch.exp(-((x[:, None] - self.centres) ** 2).sum(-1)) @ self.weights


def piecewise(self: Any, x: Tensor) -> Tensor:
    h = self.layer(x)
    h[h < 0] = 0
    return h


def clipped(self: Any, x: Tensor) -> Tensor:
    h = self.layer(x)
    h.clamp_(min=0).add_(1)
    return h


class StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor) -> Tensor:
        return h.sign()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def straight_through(self: Any, x: Tensor) -> Tensor:
    return self.out(StraightThrough.apply(self.first(x)))


class Recorder(nn.Module):
    """Keeps the activations of a layer by a hook, which is a bound method."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 3), nn.Linear(3, 2)
        self.first.register_forward_hook(self.record)
        self.seen: Any = None

    def record(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen = output

    def forward(self, x: Tensor) -> Tensor:
        self.first(x)
        return self.out(torch.tanh(self.seen))


class Positive(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.exp()


class BoundMethod(nn.Module):
    """Holds its own method, and a partial of it, as attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 3), nn.Linear(3, 2)
        self.body, self.head = self.run_first, partial(self.run_out, shift=1.0)

    def run_first(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))

    def run_out(self, h: Tensor, shift: float) -> Tensor:
        return self.out(h) + shift

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class InOrder(nn.Module):
    """Holds its layers a second time, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 3), nn.Linear(3, 2)
        self.order = [self.first, self.out]

    forward = of_modules_in_a_list


def ring() -> Tensor:
    """Return the normalised adjacency of a ring of N_ROWS nodes."""
    shifts = torch.roll(torch.eye(N_ROWS), 1, 0)
    return (torch.eye(N_ROWS) + shifts + shifts.T) / 3


def parametrised() -> nn.Module:
    layer = nn.Linear(4, 2)
    parametrize.register_parametrization(layer, "weight", Positive())
    return seq(layer)


def pruned() -> nn.Module:
    layer = nn.Linear(4, 3)
    prune.random_unstructured(layer, "weight", amount=0.5)
    return seq(layer, nn.Tanh(), nn.Linear(3, 2))


def quantisation_aware() -> nn.Module:
    return seq(torch.ao.quantization.FakeQuantize(), nn.Linear(4, 2))


def frozen_trunk() -> nn.Module:
    net = mlp(4, [3, 3], 2, seed=0)
    for weight in net[0].parameters():
        weight.requires_grad_(False)
    return net


def lora() -> nn.Module:
    net = Lambda(
        low_rank,
        base=nn.Linear(4, 2),
        a=nn.Linear(4, 1, bias=False),
        b=nn.Linear(1, 2, bias=False),
    )
    net.base.requires_grad_(False)
    return net


def materialised() -> nn.Module:
    net = seq(nn.LazyLinear(3), nn.Tanh(), nn.LazyLinear(2))
    net(torch.zeros(1, 4))
    return net


def after_a_call() -> nn.Module:
    net = Lambda(keeps_activations, first=nn.Linear(4, 3), out=nn.Linear(3, 2))
    net(torch.ones(1, 4))
    return net


def old_norm(normalise: Callable[..., nn.Module]) -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return seq(normalise(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2))


def linear(n_in: int, n_out: int, **options: Any) -> Callable[[], nn.Module]:
    return partial(nn.Linear, n_in, n_out, **options)


def conv(layer: nn.Module, *more: nn.Module, n: int) -> nn.Module:
    return seq(layer, nn.ReLU(), *more, nn.Flatten(), nn.Linear(n, 2))


def transformer(n_layers: int = 0, **options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0, **options)
    return nn.TransformerEncoder(layer, n_layers) if n_layers else layer


SEQUENCE, IMAGE = (5, 4), (2, 6, 6)
POINTS = ByName({"1.*": None}, default=Normal())

ZOO: dict[str, Specimen] = {
    # Linear layers and activations
    "linear": Specimen(linear(4, 2)),
    "perceptron": Specimen(lambda: mlp(4, [5, 5], 2, seed=0)),
    "without bias": Specimen(linear(4, 2, bias=False)),
    "sequence of all activations": Specimen(
        lambda: seq(
            nn.Linear(4, 3),
            nn.ELU(),
            nn.SELU(),
            nn.GELU(),
            nn.Mish(),
            nn.Softsign(),
            nn.Hardswish(),
            nn.Linear(3, 2),
        )
    ),
    "leaky ReLU in place first": Specimen(
        lambda: seq(nn.LeakyReLU(0.1, inplace=True), nn.Linear(4, 2))
    ),
    "dropout in place first": Specimen(lambda: seq(nn.Dropout(0.3, inplace=True), nn.Linear(4, 2))),
    "dropout": Specimen(lambda: seq(nn.Linear(4, 3), nn.Dropout(0.3), nn.Linear(3, 2))),
    "alpha dropout": Specimen(lambda: seq(nn.Linear(4, 3), nn.AlphaDropout(0.3), nn.Linear(3, 2))),
    "RReLU": Specimen(lambda: seq(nn.Linear(4, 3), nn.RReLU(), nn.Linear(3, 2))),
    "PReLU": Specimen(lambda: seq(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 2))),
    "functional PReLU": Specimen(
        of(prelu, first=linear(4, 3), out=linear(3, 2), slope=lambda: parameter(3))
    ),
    "GLU": Specimen(of(gated, first=linear(4, 6), out=linear(3, 2))),
    "bilinear": Specimen(of(bilinear, layer=partial(nn.Bilinear, 4, 4, 2))),
    "softmax": Specimen(lambda: seq(nn.Linear(4, 3), nn.Softmax(-1))),
    "radial basis functions": Specimen(
        of(by_exponent, centres=lambda: parameter(5, 4), weights=lambda: parameter(5, 2))
    ),
    # Normalisation
    "batch norm": Specimen(
        lambda: seq(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), prior=POINTS
    ),
    "Bayesian batch norm": Specimen(
        lambda: seq(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    ),
    "batch norm without statistics": Specimen(
        lambda: seq(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2)),
        mixes_rows=True,
    ),
    "layer norm": Specimen(lambda: seq(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))),
    "RMS norm": Specimen(lambda: seq(nn.Linear(4, 3), nn.RMSNorm(3), nn.Linear(3, 2))),
    "group norm": Specimen(lambda: conv(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), n=64), row=IMAGE),
    "instance norm": Specimen(
        lambda: conv(
            nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True, track_running_stats=True), n=48
        ),
        row=IMAGE,
    ),
    "local response norm": Specimen(
        lambda: conv(nn.Conv2d(2, 3, 3), nn.LocalResponseNorm(2), n=48), row=IMAGE
    ),
    # Convolutions
    "conv1d": Specimen(lambda: conv(nn.Conv1d(4, 3, 3), n=9), row=(4, 5)),
    "conv2d": Specimen(lambda: conv(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), n=12), row=IMAGE),
    "conv2d with batch norm": Specimen(
        lambda: seq(
            nn.Conv2d(2, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 2),
        ),
        row=IMAGE,
        prior=POINTS,
    ),
    "conv3d": Specimen(lambda: conv(nn.Conv3d(1, 2, 2), n=16), row=(1, 3, 3, 3)),
    "transposed conv": Specimen(lambda: conv(nn.ConvTranspose2d(2, 1, 2), n=49), row=IMAGE),
    "depthwise dilated conv": Specimen(
        lambda: conv(nn.Conv2d(2, 4, 2, groups=2, dilation=2), n=64), row=IMAGE
    ),
    "circular conv": Specimen(
        lambda: conv(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.AvgPool2d(3), n=8),
        row=IMAGE,
    ),
    "pixel shuffle": Specimen(
        lambda: conv(nn.Conv2d(2, 4, 3), nn.PixelShuffle(2), nn.Upsample(scale_factor=0.5), n=16),
        row=IMAGE,
    ),
    "skip connection": Specimen(
        of(
            skip_connection,
            down=partial(nn.Conv2d, 2, 3, 2, stride=2),
            out=partial(nn.Conv2d, 5, 2, 1),
        ),
        row=IMAGE,
    ),
    # Sequences
    "RNN": Specimen(
        of(last_of_sequence, rnn=partial(nn.RNN, 4, 3, batch_first=True), out=linear(3, 2)),
        row=SEQUENCE,
    ),
    "GRU": Specimen(
        of(last_of_sequence, rnn=partial(nn.GRU, 4, 3, batch_first=True), out=linear(3, 2)),
        row=SEQUENCE,
    ),
    "two-way LSTM": Specimen(
        of(
            last_of_sequence,
            rnn=partial(nn.LSTM, 4, 3, 2, batch_first=True, bidirectional=True, dropout=0.2),
            out=linear(6, 2),
        ),
        row=SEQUENCE,
    ),
    "LSTM with projection": Specimen(
        of(
            last_of_sequence,
            rnn=partial(nn.LSTM, 4, 3, batch_first=True, proj_size=2),
            out=linear(2, 2),
        ),
        row=SEQUENCE,
    ),
    "LSTM cell": Specimen(
        of(cell_loop, cell=partial(nn.LSTMCell, 4, 3), out=linear(3, 2)), row=SEQUENCE
    ),
    "stateful RNN": Specimen(
        of(stateful, rnn=partial(nn.RNN, 4, 3, batch_first=True), out=linear(3, 2)), row=SEQUENCE
    ),
    "embedding": Specimen(
        of(mean_embedding, embedding=partial(nn.Embedding, 6, 3), out=linear(3, 2)),
        row=(5,),
        n_tokens=6,
    ),
    "embedding with padding": Specimen(
        of(sum_embedding, embedding=partial(nn.Embedding, 6, 3, padding_idx=0), out=linear(3, 2)),
        row=(5,),
        n_tokens=6,
    ),
    "embedding bag": Specimen(
        lambda: seq(nn.EmbeddingBag(6, 3), nn.Linear(3, 2)), row=(5,), n_tokens=6
    ),
    "embedding tied to the output": Specimen(
        of(tied_embedding, embedding=partial(nn.Embedding, 6, 3)), row=(5,), n_tokens=6
    ),
    "attention": Specimen(
        of(
            attention,
            attention=partial(nn.MultiheadAttention, 4, 2, batch_first=True),
            out=linear(4, 2),
        ),
        row=SEQUENCE,
    ),
    "attention by scaled dot products": Specimen(
        of(attention_of_products, qkv=linear(4, 12), out=linear(4, 2)), row=SEQUENCE
    ),
    "transformer layer": Specimen(of(encoder, encoder=transformer, out=linear(4, 2)), row=SEQUENCE),
    "transformer": Specimen(
        of(encoder, encoder=partial(transformer, 2, norm_first=True), out=linear(4, 2)),
        row=SEQUENCE,
    ),
    "transformer decoder": Specimen(
        of(
            decoder,
            out=linear(4, 2),
            decoder=partial(nn.TransformerDecoderLayer, 4, 2, 8, batch_first=True, dropout=0.0),
        ),
        row=SEQUENCE,
    ),
    "positions": Specimen(
        of(positions, layer=linear(4, 3), out=linear(3, 2), position=lambda: parameter(8, 3)),
        row=SEQUENCE,
    ),
    "cached positions": Specimen(
        of(cached_positions, layer=linear(4, 3), out=linear(3, 2), cache=lambda: None),
        row=SEQUENCE,
    ),
    # Weights that are functions of parameters
    "weight norm": Specimen(
        lambda: seq(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2))
    ),
    "spectral norm": Specimen(
        lambda: seq(parametrizations.spectral_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2))
    ),
    "orthogonal": Specimen(lambda: seq(parametrizations.orthogonal(nn.Linear(4, 3)))),
    "own parametrization": Specimen(parametrised),
    "weight norm by hook": Specimen(lambda: old_norm(nn.utils.weight_norm)),
    "spectral norm by hook": Specimen(lambda: old_norm(nn.utils.spectral_norm)),
    "pruned": Specimen(pruned),
    "masked": Specimen(of(masked, layer=linear(4, 2), mask=lambda: torch.eye(2, 4))),
    "positive weights": Specimen(of(monotone, first=linear(4, 3), out=linear(3, 2, bias=False))),
    "hypernetwork": Specimen(of(hypernetwork, hyper=linear(3, 8), code=lambda: parameter(3))),
    "transposed weights": Specimen(of(transposed, layer=linear(4, 2), other=linear(4, 2))),
    # Structure
    "layer used twice": Specimen(of(twice, shared=linear(4, 4), out=linear(4, 2))),
    "siamese": Specimen(of(siamese, encoder=linear(2, 3), out=linear(3, 2))),
    "residual": Specimen(of(residual, layer=linear(4, 4), out=linear(4, 2))),
    "list of modules": Specimen(
        of(looped, layers=lambda: nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 2)]))
    ),
    "dictionary of modules": Specimen(
        of(by_key, layers=lambda: nn.ModuleDict({"first": nn.Linear(4, 3), "out": nn.Linear(3, 2)}))
    ),
    "list of parameters": Specimen(
        of(listed, weights=lambda: nn.ParameterList([parameter(4, 3), parameter(3, 2)]))
    ),
    "dictionary of parameters": Specimen(
        of(keyed, weights=lambda: nn.ParameterDict({"a": parameter(4, 3), "b": parameter(3, 2)}))
    ),
    "modules in a plain list too": Specimen(InOrder),
    "methods as attributes": Specimen(BoundMethod),
    "scalar parameter": Specimen(
        of(temperature, layer=linear(4, 2), scale=lambda: nn.Parameter(torch.tensor(0.1)))
    ),
    "empty parameter": Specimen(
        of(unused_head, first=linear(4, 2), empty=lambda: nn.Parameter(torch.empty(0, 3)))
    ),
    "einsum": Specimen(of(with_einsum, core=lambda: parameter(4, 2, 4))),
    "Fourier layer": Specimen(
        of(spectral, real=lambda: parameter(3), imaginary=lambda: parameter(3), out=linear(4, 2))
    ),
    "mixture of experts": Specimen(
        of(
            experts,
            gate=linear(4, 2),
            experts=lambda: nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)]),
        )
    ),
    "Euler steps": Specimen(of(euler, field=linear(4, 4), out=linear(4, 2))),
    "fixed point": Specimen(of(fixed_point, layer=linear(4, 4), out=linear(4, 2))),
    "low-rank update": Specimen(lora),
    "frozen trunk": Specimen(frozen_trunk),
    "lazy layers after a call": Specimen(materialised),
    "branches by a parameter": Specimen(
        of(
            branches,
            left=linear(4, 2),
            right=linear(4, 2),
            layer_scale=lambda: nn.Parameter(torch.tensor(0.1)),
        )
    ),
    "gradient checkpoint": Specimen(of(checkpointed, first=linear(4, 3), out=linear(3, 2))),
    "straight-through gradient": Specimen(
        of(straight_through, first=linear(4, 3), out=linear(3, 2))
    ),
    "graph module": Specimen(lambda: torch.fx.symbolic_trace(mlp(4, [3], 2, seed=0))),
    # State that forward writes
    "kept activations": Specimen(of(keeps_activations, first=linear(4, 3), out=linear(3, 2))),
    "kept activations of an earlier call": Specimen(after_a_call),
    "kept list": Specimen(of(keeps_list, first=linear(4, 3), out=linear(3, 2), seen=list)),
    "hook that keeps activations": Specimen(Recorder),
    "buffer changed in place": Specimen(
        of(counts_in_place, layer=linear(4, 2), count=lambda: torch.zeros(())), mixes_rows=True
    ),
    "buffer assigned": Specimen(
        of(assigns_buffer, layer=linear(4, 2), mean=lambda: torch.zeros(4))
    ),
    "fake quantisation": Specimen(quantisation_aware, mixes_rows=True),
    "input changed in place": Specimen(
        of(writes_into_input, layer=linear(4, 2), shift=lambda: parameter(4))
    ),
    "columns of the input set": Specimen(of(writes_some_columns, layer=linear(4, 2))),
    "hidden units set": Specimen(of(piecewise, layer=linear(4, 2))),
    "hidden units changed in place": Specimen(of(clipped, layer=linear(4, 2))),
    # Rows that interact, and random numbers
    "centred over rows": Specimen(
        of(centred, first=linear(4, 3), out=linear(3, 2)), mixes_rows=True
    ),
    "attention over rows": Specimen(of(attention_over_rows, out=linear(4, 2)), mixes_rows=True),
    "graph network": Specimen(
        of(graph, first=linear(4, 3), out=linear(3, 2), adjacency=ring),
        mixes_rows=True,
        needs_all_rows=True,
    ),
    "functional dropout": Specimen(
        of(functional_dropout, first=linear(4, 3), out=linear(3, 2)), draws_numbers=True
    ),
    "noise": Specimen(of(noisy, layer=linear(4, 2)), draws_numbers=True),
}
