"""Layers whose parameters are drawn for each row, and modules that use parameters otherwise."""

import logging
import re
import warnings

import pytest
import torch
from modules import LastState
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from pyrobbb import BayesianNetwork, MeanFieldGuide, fit, priors
from pyrobbb.elbo import FusedELBO


class Custom(nn.Module):
    """A module of a weight, a bias and a function of x and both."""

    def __init__(self, function, shape=(3, 3)):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(3))
        self.function = function

    def forward(self, x):
        return self.function(x, self.weight, self.bias)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return x @ weight.t()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class TwoLayers(nn.Module):
    """Two layers, and a function that is called before, between and after them."""

    def __init__(self, function, *, checkpointed=False):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)
        self.function, self.checkpointed = function, checkpointed

    def forward(self, x):
        if self.checkpointed:
            return self.second(checkpoint(self.first, x, use_reentrant=False))
        return self.second(self.function(torch.tanh(self.first(x))))


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).transpose(0, 1)[:, :, 0]


class FlatTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x.flatten(0, 1)).reshape(x.shape[:2])


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0].mean(1)


class SquaredFirst(nn.Module):
    """Whose rows are taken for columns."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 1)

    def forward(self, x):
        return self.layer(x.t().expand(5, 5)).mean(0).expand(5)[:, None]


LINEAR = functional.linear
OTHER_USES = {
    "embedding bag": (
        lambda: nn.Sequential(nn.EmbeddingBag(5, 3), nn.Linear(3, 1)),
        "'0.weight' is used by torch.nn.functional.embedding_bag",
    ),
    "embedding by frequency": (
        lambda: nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True), nn.Flatten()),
        "'0.weight' is used by torch.nn.functional.embedding",
    ),
    "transposed": (
        lambda: Custom(lambda x, w, b: LINEAR(x, w.t(), b)),
        "'weight' is used by torch.Tensor.t",
    ),
    "matrix product": (lambda: Custom(lambda x, w, b: x @ w.T + b), "torch.Tensor.T.__get__"),
    "own product": (lambda: Custom(lambda x, w, b: x @ w), "torch.Tensor.matmul"),
    "addmm": (
        lambda: Custom(lambda x, w, b: torch.addmm(b, x, w)),
        "'bias' is used by torch.addmm",
    ),
    "aten": (lambda: Custom(lambda x, w, b: torch.ops.aten.mm(x, w)), "aten.mm"),
    "einsum": (lambda: Custom(lambda x, w, b: torch.einsum("ni,oi->no", x, w)), "einsum"),
    "masked": (lambda: Custom(lambda x, w, b: LINEAR(x, w * w.new_ones(3, 3), b)), "Tensor.mul"),
    "data": (lambda: Custom(lambda x, w, b: LINEAR(x, w, b) + w.data.sum()), "Tensor.data.__get__"),
    "dropped": (lambda: Custom(lambda x, w, b: LINEAR(x, functional.dropout(w), b)), "dropout"),
    "stacked": (lambda: Custom(lambda x, w, b: LINEAR(x, torch.cat([w, w]))), "torch.cat"),
    "as input": (lambda: Custom(lambda x, w, b: x + LINEAR(w, w, b).mean()), "linear"),
    "vector": (
        lambda: Custom(lambda x, w, b: LINEAR(x, b)[:, None], (3,)),
        "'bias' is used by .*linear",
    ),
    "one bias for all": (lambda: OneBias(), "'bias' is used by torch.nn.functional.linear"),
    "added bias": (lambda: Custom(lambda x, w, b: LINEAR(x, w) + b), "'bias' is used by"),
    "in a function": (lambda: Custom(lambda x, w, b: Product.apply(x, w) + 0), r"torch.Tensor.t\b"),
    "weight norm": (lambda: weight_norm(nn.Linear(3, 1)), "original[01]' is used by"),
    "old weight norm": (lambda: deprecated("weight_norm"), "weight_[gv]' is used by"),
    "old spectral norm": (lambda: deprecated("spectral_norm"), "weight_orig' is used by"),
    "spectral norm": (lambda: spectral_norm(nn.Linear(3, 2)), "original' is used by"),
    "layer norm of images": (
        lambda: nn.LayerNorm((4, 3)),
        "'weight' is used by torch.nn.functional.layer_norm",
    ),
    "Bayesian batch norm": (
        lambda: nn.BatchNorm1d(3),
        "'weight' is used by torch.nn.functional.batch_norm",
    ),
    "orthogonal": (lambda: orthogonal(nn.Linear(3, 2)), "original' is used by"),
    "noise": (
        lambda: Custom(lambda x, w, b: (x + torch.randn_like(x)) @ w),
        "'weight' is used by torch.Tensor.matmul",
    ),
    "tied to an embedding with padding": (
        lambda: TiedWithPadding(),
        "'words.weight' is used by torch.nn.functional.linear",
    ),
    "bilinear": (lambda: Bilinear(), "'layer.weight' is used by torch.nn.functional.bilinear"),
    "transposed conv": (lambda: nn.ConvTranspose1d(4, 2, 2), "conv_transpose1d"),
    "prelu": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.PReLU()),
        "'1.weight' is used by torch.nn.functional.prelu",
    ),
    "attention": (Packed, "in_proj_weight' is used by torch.nn.functional.multi_head_attention"),
    "LSTM": (LastState, "'lstm.weight_ih_l0' is used by"),
    "time first": (TimeFirst, "rows of x in the first dimension.*'layer.weight' has an input of"),
    "flat time": (
        FlatTime,
        r"for 2 rows linear with 'layer.weight' has an input of shape \(8, 3\)",
    ),
    "vmap": (
        lambda: Custom(lambda x, w, b: torch.vmap(LINEAR, (0, None, None))(x, w, b)),
        "rows of x in the first dimension",
    ),
    "doubled rows": (
        lambda: Custom(lambda x, w, b: LINEAR(torch.cat([x, -x]), w, b)[: len(x)]),
        "rows of x in the first dimension",
    ),
    "batch norm": (
        lambda: TwoLayers(nn.BatchNorm1d(4, affine=False)),
        "rows that do not affect each other",
    ),
    "centred": (lambda: TwoLayers(lambda h: h - h.mean(0)), "rows that do not affect each other"),
    "flipped": (lambda: TwoLayers(lambda h: h.flip(0)), "input of linear with 'second.weight'"),
    "cumulative": (lambda: TwoLayers(lambda h: h.cumsum(0)), "rows that do not affect each other"),
    "from the end": (
        lambda: TwoLayers(lambda h: h.flip(0).cumsum(0).flip(0)),
        "rows that do not affect each other",
    ),
    "centred output": (
        lambda: Custom(lambda x, w, b: LINEAR(x, w, b) - LINEAR(x, w, b).mean(0)),
        "in the output they do",
    ),
    "centred after dropout": (
        lambda: Custom(lambda x, w, b: functional.dropout(x - x.mean(0), 0.5) @ w),
        "'weight' is used by torch.Tensor.matmul",
    ),
    "norm of a batch": (
        lambda: TwoLayers(nn.BatchNorm1d(4, track_running_stats=False)),
        "rows that do not affect each other",
    ),
}


def several_groups(x, weight, bias):
    one = functional.conv1d(x[:, None], weight)
    return functional.conv1d(one, weight, groups=3).mean(-1)


class OneBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return functional.linear(x, x.new_ones(2, 3), self.bias)


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(3, 3, 1)

    def forward(self, x):
        return self.layer(x, x)


class TiedWithPadding(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 3, padding_idx=0)

    def forward(self, x):
        return functional.linear(self.words(x).mean(1), self.words.weight)


def deprecated(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return getattr(nn.utils, name)(nn.Linear(3, 2))


ROWS = {
    "tied to an embedding with padding": None,
    "embedding bag": None,
    "embedding by frequency": None,
    "transposed conv": (4, 5),
}
ROWS |= {"attention": (4, 3), "LSTM": (4, 2), "layer norm of images": (4, 3)}
ROWS |= {"time first": (4, 3), "flat time": (4, 3)}
ALONE = {  # why rows cannot be run alone either; the others can
    "embedding by frequency": "a row alone has another output or gradient",
    "Bayesian batch norm": "the module changes its buffers",
    "orthogonal": "the output jumps at the means of the weights",
    "noise": "draws random numbers other than those of dropout",
    "old spectral norm": "the module changes its buffers",
    "spectral norm": "the module changes its buffers",
    "batch norm": "the module changes its buffers",
    "centred": "a row alone has another output or gradient",
    "flipped": "a row alone has another output or gradient",
    "cumulative": "a row alone has another output or gradient",
    "from the end": "a row alone has another output or gradient",
    "centred output": "a row alone has another output or gradient",
    "centred after dropout": "a row alone has another output or gradient",
    "norm of a batch": "a row alone fails .Expected more than 1 value per channel",
}


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("name", OTHER_USES)
def test_other_uses_are_of_rows_run_alone_or_raise_before_the_first_step(name, estimator, caplog):
    make, message = OTHER_USES[name]
    row = ROWS.get(name, (3,))
    x = torch.zeros((6, 2), dtype=torch.long) if row is None else torch.randn(6, *row)
    net = make()
    network = BayesianNetwork(net, priors.Normal(1.0))
    with torch.no_grad():
        y = torch.zeros_like(net(x))
    if name not in ALONE:
        with caplog.at_level(logging.INFO, "pyrobbb"):
            fit(network, x, y, epochs=1, estimator=estimator, progress=False)
        assert re.search("Each row is (run|mapped) alone with its own draw of all", caplog.text)
        assert re.search(message, caplog.text)
        return
    with pytest.raises(ValueError, match=f"{message}.*, and .*{ALONE[name]}") as raised:
        fit(network, x, y, epochs=1, estimator=estimator, progress=False)
    assert f"`estimator` '{estimator}'" in str(raised.value)
    assert "use estimator='reparam'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("x", [torch.ones(1, 3), torch.ones(6, 3)])
def test_equal_rows_show_too_that_they_affect_each_other(x):
    net = Custom(lambda x, w, b: (x - x.mean(0)) @ w)
    network = BayesianNetwork(net, priors.Normal(1.0))
    with pytest.raises(ValueError, match="a row alone has another output or gradient"):
        FusedELBO(estimator="local").loss(network, MeanFieldGuide(network), x, torch.zeros_like(x))


def test_flipout_refuses_a_weight_with_several_numbers_of_groups():
    network = BayesianNetwork(Custom(several_groups, (3, 1, 2)), priors.Normal(1.0))
    guide, x, y = MeanFieldGuide(network), torch.randn(6, 3), torch.randn(6, 3)
    assert FusedELBO(estimator="local").loss(network, guide, x, y) > 0  # draws the weights
    with pytest.raises(ValueError, match="one number of groups for each weight, but 'weight'"):
        FusedELBO(estimator="flipout").loss(network, guide, x, y)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.GELU()])
@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_elementwise_layers_and_dropout_do_not_mix_rows(layer, estimator):
    network = BayesianNetwork(TwoLayers(layer), priors.Normal(1.0))
    elbo = FusedELBO(estimator=estimator)
    assert elbo.loss(network, MeanFieldGuide(network), torch.randn(6, 3), torch.randn(6, 1)) > 0


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_buffers_that_change_in_each_call_do_not_mix_rows(estimator):
    class Moving(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("n_calls", torch.tensor(0))

        def forward(self, x):
            self.n_calls += 1
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            return self.layer(x - self.mean) / self.n_calls

    network = BayesianNetwork(Moving(), priors.Normal(1.0))
    guide, x, y = MeanFieldGuide(network), torch.randn(6, 3), torch.randn(6, 1)
    FusedELBO(estimator=estimator).loss(network, guide, x, y)
    assert network.net.n_calls == 1
    torch.testing.assert_close(network.net.mean, 0.1 * x.mean(0))


def test_the_trial_changes_neither_buffers_nor_the_random_state():
    class Normalised(nn.Module):
        """Batch norm before the first layer, so that rows may have different draws, and dropout."""

        def __init__(self):
            super().__init__()
            self.norm, self.dropout = nn.BatchNorm1d(3, affine=False), nn.Dropout(0.5)
            self.layer = nn.Linear(3, 1)
            self.register_buffer("n_calls", torch.tensor(0))

        def forward(self, x):
            self.n_calls = self.n_calls + 1
            return self.layer(self.dropout(self.norm(x)))

    network = BayesianNetwork(Normalised(), priors.Normal(1.0))
    guide, x, y = MeanFieldGuide(network), torch.randn(6, 3), torch.randn(6, 1)
    elbo = FusedELBO(estimator="local")
    losses = []
    for _ in range(2):  # the first call has the trial
        torch.manual_seed(0)
        losses.append(elbo.loss(network, guide, x, y))
    assert losses[0] == losses[1]
    assert network.net.norm.num_batches_tracked == network.net.n_calls == 2


def test_layers_that_are_used_as_often_as_the_data_require_have_one_draw():
    class Until(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            for _ in range(1 + int(x[0, 0] > 0)):
                x = self.layer(x)
            return x

    network = BayesianNetwork(Until(), priors.Normal(1.0))
    guide, elbo = MeanFieldGuide(network, init_scale=0.5), FusedELBO(estimator="local")
    x, y = torch.randn(4, 3), torch.zeros(4, 3)
    for first in (-1.0, 1.0, -1.0):
        x[0, 0] = first
        assert elbo.loss(network, guide, x, y) > 0
