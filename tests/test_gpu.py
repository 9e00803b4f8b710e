"""Fits on a GPU, if there is one; test_devices.py covers most of it on a simulated device."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import BayesianNetwork, FusedELBO, MeanFieldGuide, Posterior, fit, likelihoods, mlp
from pyrobbb._core.random_state import seeded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here."),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(103, 3)).astype(np.float32)
Y = X.sum(1, keepdims=True) + 0.1 * RNG.normal(size=(103, 1)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 1)
ENGINES = ["svi", "fused", "auto", pytest.param("compiled", marks=pytest.mark.slow)]


def network(**parts):
    return BayesianNetwork(mlp(3, [16], 1, "tanh", seed=0), **parts)


def quick_fit(model=None, x=X, y=Y, **options):
    options = {"epochs": 60, "batch_size": 50, "lr": 0.02, "seed": 1, "device": "cuda", **options}
    return fit(network() if model is None else model, x, y, progress=False, **options)


def is_on_gpu(posterior):
    tensors = [
        tensor
        for chain in posterior.chains
        for tensor in (*chain.network.parameters(), *chain.guide.parameters(), chain.example)
    ]
    return all(tensor.is_cuda for tensor in tensors)


@pytest.mark.filterwarnings("default::UserWarning", "default::DeprecationWarning")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_fit_on_a_gpu_learns_what_one_on_the_cpu_does(engine):
    model = network()
    on_gpu = quick_fit(model, engine=engine)
    on_cpu = quick_fit(model, engine="fused", device="cpu")
    assert is_on_gpu(on_gpu)
    assert not model.net[0].weight.is_cuda
    if engine != "auto":
        assert on_gpu.settings["engine"] == engine
    ends = [fit.history.per_epoch().nelbo[-10:].mean() for fit in (on_gpu, on_cpu)]
    start = on_cpu.history.nelbo[0]
    assert abs(ends[0] - ends[1]) < 0.05 * (start - ends[1])  # their noise differs


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_a_seed_makes_a_fit_on_a_gpu_repeatable(engine):
    one, other = (quick_fit(engine=engine, epochs=3, seed=5) for _ in range(2))
    torch.testing.assert_close(one.guide.loc, other.guide.loc, rtol=1e-5, atol=1e-6)


def test_the_first_loss_and_gradients_are_those_of_the_cpu():
    model, noise = network().double(), None
    results = []
    for device in ("cpu", "cuda"):
        moved = model.to(device)
        guide = MeanFieldGuide(moved)
        fused = FusedELBO()._fuse(moved, guide)
        noise = fused.noise() if noise is None else noise.to(device)
        x, y = (torch.as_tensor(t).double().to(device) for t in (X, Y))
        with torch.no_grad():
            step = fused((guide.loc, guide.rho), (), noise, x, y)
        results.append([t.detach().cpu() for t in (step.nll, step.kl, step.d_loc, step.d_rho)])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


OPTIONS = {
    "restarts": {"restarts": 2},
    "two draws": {"n_particles": 2},
    "local": {"estimator": "local"},
    "flipout": {"estimator": "flipout"},
    "weights": {"sample_weight": np.ones(103), "objective": "mean_field"},
    "auto_normal": {"guide": "auto_normal"},
    "validation": {"validation": (X, Y), "patience": 1, "kl_warmup": 0.0},
    "float64": {"dtype": torch.float64},
    "SGD, clipped": {"optimizer": torch.optim.SGD, "lr": 1e-4, "clip_norm": 1.0},
    "AdamW": {"optimizer": torch.optim.AdamW},
    "callback": {"callbacks": lambda end: end.posterior().predict(X, n_draws=2).log_prob(Y)},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_every_option_of_fit_works_on_a_gpu(case):
    posterior = quick_fit(epochs=3, **{"engine": "fused", **OPTIONS[case]})
    assert is_on_gpu(posterior)
    assert all(np.isfinite(chain.history.nelbo).all() for chain in posterior.chains)


def test_batches_of_a_loader_are_moved_to_the_gpu():
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), 50)
    posterior = fit(network(), loader, n_data=103, epochs=2, progress=False, device="cuda")
    assert is_on_gpu(posterior)


def test_predictions_are_repeatable_and_have_the_array_type_of_the_input():
    posterior = quick_fit(epochs=3)
    by_array, again = (posterior.predict(X, n_draws=20, seed=0) for _ in range(2))
    np.testing.assert_array_equal(by_array.mean, again.mean)
    for value in (by_array.mean, by_array.sd, *by_array.interval(), by_array.central_level(Y)):
        assert isinstance(value, np.ndarray)
        assert value.shape == Y.shape
    by_tensor = posterior.predict(torch.as_tensor(X), n_draws=20, seed=0)
    for value in (by_tensor.mean, by_tensor.log_prob(Y), *by_tensor.interval()):
        assert value.is_cuda
    np.testing.assert_array_equal(by_tensor.mean.cpu().numpy(), by_array.mean)
    assert posterior.draws(3)["0.weight"].is_cuda


def test_classes_are_predicted_on_a_gpu():
    model = BayesianNetwork(mlp(3, [16], 3, seed=0), likelihood=likelihoods.Categorical())
    prediction = quick_fit(model, y=LABELS).predict(X, n_draws=20)
    assert (prediction.label == LABELS).mean() > 0.7
    assert np.isfinite(prediction.log_prob(LABELS)).all()
    assert (prediction.mutual_information >= 0).all()


def test_a_posterior_from_a_gpu_is_loaded_on_the_cpu_or_where_the_network_is(tmp_path):
    posterior = quick_fit(epochs=3)
    posterior.save(tmp_path / "model")
    on_cpu = Posterior.load(tmp_path / "model")
    assert on_cpu.guide.loc.device.type == on_cpu.example.device.type == "cpu"
    assert torch.equal(on_cpu.guide.loc, posterior.guide.loc.cpu())
    assert is_on_gpu(Posterior.load(tmp_path / "model", network().to("cuda")))


@pytest.mark.parametrize("engine", ["svi", "fused"])
def test_autocast_on_a_gpu_is_close_to_float32(engine):
    rounded = quick_fit(engine=engine, autocast=torch.bfloat16)
    plain = quick_fit(engine=engine)
    assert rounded.guide.loc.dtype == torch.float32
    assert rounded.history.kl[0] == pytest.approx(plain.history.kl[0], rel=1e-6)
    assert rounded.history.nll[0] != plain.history.nll[0]
    assert rounded.history.nelbo[-1] == pytest.approx(plain.history.nelbo[-1], rel=0.1)
    assert rounded.predict(torch.as_tensor(X), n_draws=2).mean.dtype == torch.float32


def test_the_random_state_of_the_gpu_is_left_as_it_was():
    torch.cuda.manual_seed_all(3)
    expected = torch.randn(4, device="cuda")
    torch.cuda.manual_seed_all(3)
    quick_fit(epochs=2, engine="svi").predict(X, n_draws=3).sample()
    assert torch.equal(torch.randn(4, device="cuda"), expected)
    with seeded(1):
        one = torch.randn(4, device="cuda")
    with seeded(1):
        assert torch.equal(torch.randn(4, device="cuda"), one)
