"""fit(device=, dtype=, autocast=): the device and precision of a fit."""

import copy
from typing import ClassVar

import numpy as np
import pyro
import pytest
import support
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyrobbb import BayesianNetwork, FusedELBO, MeanFieldGuide, Posterior, fit, likelihoods, mlp
from pyrobbb.elbo.fused_loss import FusedLoss

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(23, 1))
ENGINES = ["svi", "fused", pytest.param("compiled", marks=pytest.mark.slow)]
OPTIONS = {"epochs": 2, "batch_size": 10, "seed": 1, "engine": "fused", "progress": False}


def network(dtype=torch.float32, **parts):
    return support.small_network(dtype=dtype, **parts)


def quick_fit(net=None, **options):
    return fit(network() if net is None else net, X, Y, **{**OPTIONS, **options})


# Device and dtype


class Rotated(nn.Module):
    """Multiplies its output by the imaginary part of a complex buffer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("phase", torch.tensor(1 + 2j))

    def forward(self, x):
        return (self.layer(x) * self.phase).imag


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_complex_buffers_stay_complex(dtype):
    net = Rotated()
    posterior = quick_fit(BayesianNetwork(net.double()), dtype=dtype)
    assert posterior.network.net.phase == 1 + 2j
    assert posterior.guide.loc.dtype == dtype


@pytest.mark.parametrize("engine", ENGINES)
def test_fit_in_a_different_dtype_is_that_of_a_converted_network(engine):
    options = {"engine": engine, "validation": (X, Y), "sample_weight": np.ones(23)}
    before = network()
    moved = quick_fit(before, dtype=torch.float64, **options)
    expected = quick_fit(network(torch.float64), **options)
    assert moved.guide.loc.dtype == moved.network.net[0].weight.dtype == torch.float64
    assert moved.example.dtype == torch.float64
    assert torch.equal(moved.guide.loc, expected.guide.loc)
    np.testing.assert_array_equal(moved.history.nll, expected.history.nll)
    np.testing.assert_array_equal(moved.history.validation_nll, expected.history.validation_nll)
    assert before.net[0].weight.dtype == torch.float32  # the user's network is unchanged


def test_float64_network_is_fitted_in_float32():
    posterior = quick_fit(network(torch.float64), dtype="float32", device="cpu", restarts=2)
    assert {chain.guide.loc.dtype for chain in posterior.chains} == {torch.float32}
    assert posterior.predict(X, n_draws=3).mean.dtype == np.float32
    assert posterior.predict(torch.as_tensor(X), n_draws=3).mean.dtype == torch.float32


def test_initial_posterior_may_have_a_different_dtype():
    start = quick_fit()
    posterior = quick_fit(start=start, dtype=torch.float64, lr=1e-12)
    torch.testing.assert_close(posterior.guide.loc, start.guide.loc.double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16", torch.int64, "single", 3])
def test_other_dtypes_are_refused(dtype):
    message = r"`dtype` must be torch.float32 or torch.float64, got .*autocast=torch.bfloat16"
    with pytest.raises(ValueError, match=message):
        quick_fit(dtype=dtype)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "must be a torch device such as"),
        ([], "must be a torch device"),
        ("xla", "cannot be used"),
    ],
)
def test_unavailable_device_is_refused(device, message):
    with pytest.raises(ValueError, match=f"`device` .*{message}"):
        quick_fit(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="There is a GPU.")
def test_missing_gpu_is_refused():
    with pytest.raises(ValueError, match="`device` 'cuda' cannot be used on this machine"):
        quick_fit(device="cuda")


def test_custom_guide_is_not_moved():
    net = network()
    message = r"`device` and `dtype` must be left out with a custom `guide`.*guide.to\(...\)"
    with pytest.raises(ValueError, match=message):
        quick_fit(net, guide=MeanFieldGuide(net), dtype=torch.float64)
    guide = MeanFieldGuide(net)
    assert quick_fit(net, guide=guide, dtype=torch.float32, device="cpu").guide is guide


# Autocast


class Wide(nn.Module):
    """Records the dtype of the output of its layers."""

    seen: ClassVar[set] = set()

    def __init__(self):
        super().__init__()
        self.layers = mlp(3, [32], 1, "tanh", seed=0)

    def forward(self, x):
        hidden = self.layers(x)
        Wide.seen.add(hidden.dtype)
        return hidden


class Spy(likelihoods.Gaussian):
    """Records the dtypes in which densities are computed."""

    seen: ClassVar[set] = set()

    def given(self, output, latents):
        distribution = super().given(output, latents)
        Spy.seen |= {output.dtype, distribution.scale.dtype, *(v.dtype for v in latents.values())}
        return distribution


NETS = {"plain": lambda: mlp(3, [32], 1, "tanh", seed=0), "module": Wide}
ELBOS = {
    "one draw": FusedELBO(),
    "two draws": FusedELBO(num_particles=2),
    "closed form": FusedELBO("mean_field"),
    "local": FusedELBO(estimator="local"),
    "flipout": FusedELBO(estimator="flipout"),
    "Pyro": Trace_ELBO(),
    "Pyro, two draws": Trace_ELBO(2, vectorize_particles=True, max_plate_nesting=1),
}


@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("net", NETS)
def test_only_the_module_runs_in_bfloat16(net, elbo):
    x, y = torch.as_tensor(X).float(), torch.as_tensor(Y).float()
    bayesian = BayesianNetwork(NETS[net](), likelihood=Spy())
    guide = MeanFieldGuide(bayesian)
    results = []
    for autocast in (None, torch.bfloat16):
        bayesian.autocast = autocast
        Wide.seen, Spy.seen = set(), set()
        pyro.set_rng_seed(3)
        loss = ELBOS[elbo].differentiable_loss(bayesian, guide, x, y)
        gradients = torch.autograd.grad(loss, [guide.loc, guide.rho])
        assert Spy.seen == {torch.float32}
        if net == "module" and elbo in ("one draw", "closed form", "Pyro"):
            # Elsewhere only products are in bfloat16; a float32 term makes the sum float32.
            assert Wide.seen == {autocast or torch.float32}
        assert {g.dtype for g in gradients} == {torch.float32}
        results.append((loss.detach(), *gradients))
    for plain, rounded in zip(*results, strict=True):
        gap = (rounded - plain).norm() / plain.norm()
        assert 0 < gap < 4 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("closed_form_kl", [True, False])
def test_kl_divergence_does_not_depend_on_autocast(closed_form_kl):
    net = network()
    guide = MeanFieldGuide(net)
    loss = FusedLoss(net, guide, closed_form_kl=closed_form_kl)
    noise = loss.noise()
    steps = []
    for autocast in (None, torch.bfloat16):
        net.autocast = autocast
        with torch.no_grad():
            x, y = torch.as_tensor(X).float(), torch.as_tensor(Y).float()
            steps.append(loss((guide.loc, guide.rho), (), noise, x, y))
    plain, rounded = steps
    assert torch.equal(plain.kl, rounded.kl)
    assert not torch.equal(plain.nll, rounded.nll)


@pytest.mark.parametrize("engine", ENGINES)
def test_fit_in_autocast_is_close_to_one_without(engine):
    net = network()
    epochs = 100 if engine == "compiled" else 10
    rounded = quick_fit(net, engine=engine, autocast="bfloat16", epochs=epochs)
    plain = quick_fit(engine=engine, epochs=epochs)
    assert rounded.settings["engine"] == engine
    assert (rounded.settings["autocast"], plain.settings.get("autocast")) == ("bfloat16", None)
    assert rounded.guide.loc.dtype == rounded.guide.rho.dtype == torch.float32
    assert not torch.equal(rounded.guide.loc, plain.guide.loc)
    assert rounded.history.kl[0] == plain.history.kl[0]
    np.testing.assert_allclose(rounded.history.nelbo[-1], plain.history.nelbo[-1], rtol=0.02)
    assert net.autocast is rounded.network.autocast is None


def test_predictions_of_a_callback_are_in_float32(tmp_path):
    seen = []

    def look(end):
        Wide.seen = set()
        end.posterior().predict(X, n_draws=3)
        seen.extend(Wide.seen)

    options = {"autocast": torch.bfloat16, "callbacks": look, "epochs": 1}
    posterior = quick_fit(BayesianNetwork(Wide()), **options)
    assert seen == [torch.float32]
    assert Wide.seen == {torch.float32}
    posterior.save(tmp_path / "model")
    loaded = Posterior.load(tmp_path / "model", BayesianNetwork(Wide()))
    assert loaded.settings["autocast"] == "bfloat16"
    assert loaded.network.autocast is None


def test_validation_is_in_float32():
    rounded = quick_fit(autocast=torch.bfloat16, validation=(X, Y), lr=1e-12, epochs=1)
    plain = quick_fit(validation=(X, Y), lr=1e-12, epochs=1)
    np.testing.assert_allclose(
        rounded.history.validation_nll, plain.history.validation_nll, rtol=1e-6
    )


def test_copy_of_a_network_keeps_its_autocast():
    net = network()
    net.autocast = torch.bfloat16
    assert copy.deepcopy(net).autocast is torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autocast": torch.float16}, "got float16, in which small gradients .*bfloat16"),
        ({"autocast": torch.float32}, "must be torch.bfloat16 or None, got torch.float32"),
        ({"autocast": True}, "must be torch.bfloat16 or None, got True"),
        ({"autocast": "bfloat16", "dtype": "float64"}, "needs a network in float32"),
    ],
)
def test_other_autocasts_are_refused(options, message):
    with pytest.raises(ValueError, match=f"`autocast` .*{message}"):
        quick_fit(**options)
