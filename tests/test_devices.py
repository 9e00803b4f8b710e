"""Whole fits on a simulated device, to check that every tensor is created on the right one."""

import functools
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import support
import torch
from members import LIKELIHOODS, PRIORS
from pyro.infer import SVI, Predictive, Trace_ELBO
from simulated_device import DEVICE, DeviceTensor, simulated_device, to_host
from structured import arranged, network_of
from support import small_network
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import (
    BBBClassifier,
    BBBRegressor,
    FusedELBO,
    MeanFieldGuide,
    Posterior,
    auto_normal,
    crosscheck,
    fit,
    likelihoods,
    priors,
    prune,
    scores,
    update,
)
from pyrobbb._core.trees import arrays_of
from pyrobbb.elbo.fused_loss import FusedLoss

RNG = np.random.default_rng(0)
X = RNG.normal(size=(13, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(13, 1))
WEIGHTS = RNG.uniform(size=13)
quick_fit = functools.partial(
    support.quick_fit, x=X, y=Y, epochs=1, batch_size=5, seed=0, engine="auto"
)


@pytest.fixture
def _device():
    with simulated_device():
        yield


def targets(member):
    return LIKELIHOODS[member].y.sample((len(X),)).numpy()


# The simulated device itself


@pytest.mark.usefixtures("_device")
def test_a_device_tensor_computes_as_the_tensor_it_wraps():
    on_host = torch.randn(3, 4)
    on_device = on_host.to(DEVICE).requires_grad_()
    assert on_device.device == DEVICE
    (gradient,) = torch.autograd.grad((on_device @ on_device.mT).tanh().sum(), on_device)
    on_host = on_host.requires_grad_()
    (expected,) = torch.autograd.grad((on_host @ on_host.mT).tanh().sum(), on_host)
    assert isinstance(gradient, DeviceTensor)
    assert torch.equal(gradient.cpu(), expected)
    assert torch.equal(on_device.new_tensor(2.0).cpu(), torch.tensor(2.0))
    assert torch.equal(torch.tensor([1, 2], device=DEVICE).cpu(), torch.tensor([1, 2]))


FAULTS = {
    "a product": lambda on_device: on_device * torch.ones(3),
    "a number stacked with another": lambda on_device: torch.stack(
        [on_device.sum(), torch.zeros(())]
    ),
    "a condition": lambda on_device: torch.where(
        torch.ones(3, dtype=torch.bool), on_device, on_device
    ),
    "a host tensor changed in place": lambda on_device: torch.zeros(()).add_(on_device.sum()),
    "an index": lambda on_device: torch.ones(3)[torch.zeros(2, dtype=torch.long, device=DEVICE)],
}
ALLOWED = {
    "a number": lambda on_device: on_device * torch.tensor(2.0),
    "host indices": lambda on_device: on_device[torch.tensor([2, 0])],
    "a copy": lambda on_device: on_device.new_empty(3).copy_(torch.ones(3)),
}


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize("fault", FAULTS)
def test_devices_do_not_mix(fault):
    with pytest.raises(RuntimeError, match="mixes devices"):
        FAULTS[fault](torch.ones(3, device=DEVICE))


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize("case", ALLOWED)
def test_mixtures_that_a_gpu_allows_are_allowed(case):
    assert isinstance(ALLOWED[case](torch.ones(3, device=DEVICE)), DeviceTensor)


# Steps


VARIANTS = {
    "sampled": {},
    "closed form, weighted rows": {"closed_form_kl": True, "weighted": True},
    "three draws": {"n_particles": 3, "weighted": True},
    "local": {"estimator": "local"},
}


@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=pytest.mark.slow if v == "three draws" else ()) for v in VARIANTS],
)
@pytest.mark.parametrize("member", LIKELIHOODS)
def test_the_fused_loss_is_on_the_device_of_its_inputs(member, variant):
    options = {"n_particles": 1, "weighted": False, **VARIANTS[variant]}
    n_particles, weighted = options.pop("n_particles"), options.pop("weighted")
    y = torch.as_tensor(targets(member))
    for prior in PRIORS if variant == "sampled" else ("StudentT", "ByName"):
        results = []
        for device in ("cpu", DEVICE):
            with simulated_device():
                network = small_network(
                    LIKELIHOODS[member].n_units,
                    device=device,
                    prior=PRIORS[prior][0],
                    likelihood=LIKELIHOODS[member].likelihood,
                )
                guide = MeanFieldGuide(network)
                loss = FusedLoss(network, guide, **options)
                inputs, targets_of_step, row_weight = (
                    torch.as_tensor(t).to(device) for t in (X, y, WEIGHTS if weighted else X[:, 0])
                )
                pyro.set_rng_seed(1)
                points = tuple(point.detach() for _, point in network.point_parameters())
                with torch.no_grad(), pyro.validation_enabled(False):
                    step = loss(
                        (guide.loc.detach(), guide.rho.detach()),
                        points,
                        loss.noise(n_particles),
                        inputs,
                        targets_of_step,
                        row_weight=row_weight if weighted else None,
                    )
            results.append(vars(step))
        on_host, on_device = results
        for name, value in on_device.items():
            parts = value if isinstance(value, tuple) else (value,)
            assert all(isinstance(part, DeviceTensor) for part in parts), name
            torch.testing.assert_close(to_host(value), on_host[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("member", "guide"),
    [*((member, "mean_field") for member in LIKELIHOODS), (list(LIKELIHOODS)[2], "auto_normal")],
)
def test_a_fit_by_svi_on_a_device_is_that_on_the_host(member, guide):
    y, parts = targets(member), {"likelihood": LIKELIHOODS[member].likelihood}
    n_units = LIKELIHOODS[member].n_units
    options = {"engine": "svi", "guide": guide}
    on_host = quick_fit(small_network(n_units, **parts), y=y, **options)
    with simulated_device():
        on_device = quick_fit(small_network(n_units, **parts), y=y, device=DEVICE, **options)
    assert_same_guides(on_device, on_host)
    np.testing.assert_allclose(on_device.history.nelbo, on_host.history.nelbo, rtol=1e-12)


def assert_same_guides(on_device, on_host):
    pairs = zip(on_device.guide.parameters(), on_host.guide.parameters(), strict=True)
    for parameter, expected in pairs:
        assert isinstance(parameter, DeviceTensor)
        torch.testing.assert_close(parameter.cpu(), expected.detach(), rtol=1e-12, atol=1e-13)


FITS = {
    "auto": {},
    "restarts": {"restarts": 2},
    "two draws": {"n_particles": 2},
    "local": {"estimator": "local"},
    "flipout": {"estimator": "flipout"},
    "weights": {"sample_weight": WEIGHTS},
    "weights, svi": {"sample_weight": WEIGHTS, "engine": "svi"},
    "two draws, svi": {"n_particles": 2, "engine": "svi"},
    "closed form, svi": {"objective": "mean_field", "engine": "svi"},
    "validation": {"validation": (X, Y), "patience": 2, "kl_warmup": 0.0},
    "clipped": {"clip_norm": 1.0},
    "clipped, svi": {"clip_norm": 1.0, "engine": "svi"},
    "AdamW": {"optimizer": functools.partial(torch.optim.AdamW, weight_decay=0.1)},
    "SGD": {"optimizer": torch.optim.SGD, "lr": 1e-4},
    "callback": {"callbacks": lambda end: end.posterior().predict(X, n_draws=3).log_prob(Y)},
    "points": {"make": lambda: small_network(prior=priors.ByName({"*.bias": None}))},
    "full batch": {"batch_size": 13},
}


@pytest.mark.parametrize("case", FITS)
def test_every_option_of_fit_works_on_a_device(case):
    options = {**FITS[case]}
    make = options.pop("make", small_network)
    with simulated_device():
        posterior = quick_fit(make(), device=DEVICE, **options)
    for chain in posterior.chains:
        assert all(isinstance(p, DeviceTensor) for p in chain.network.parameters())
        assert isinstance(chain.guide.loc, DeviceTensor)
        assert isinstance(chain.example, DeviceTensor)
        assert np.isfinite(chain.history.nelbo).all()


@pytest.mark.usefixtures("_device")
def test_batches_of_a_loader_are_moved_to_the_device():
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), 5)
    posterior = fit(small_network(), loader, n_data=13, epochs=1, progress=False, device=DEVICE)
    assert isinstance(posterior.guide.loc, DeviceTensor)


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize("options", [{}, {"engine": "svi"}, {"restarts": 2, "batch_size": 13}])
def test_structured_inputs_are_moved_to_the_device(options, tmp_path):
    form = "a named output"
    x = arranged(form, X)
    posterior = quick_fit(network_of(form), x=x, device=DEVICE, validation=(x, Y), **options)
    assert {array.device for array in arrays_of(posterior.chains[0].example)} == {DEVICE}
    on_host = quick_fit(network_of(form), x=x, validation=(x, Y), **options)
    np.testing.assert_allclose(posterior.predict(x, 5, 1).mean, on_host.predict(x, 5, 1).mean)
    posterior.save(tmp_path)
    loaded = Posterior.load(tmp_path, network_of(form))
    np.testing.assert_allclose(loaded.predict(x, 5, 1).mean, on_host.predict(x, 5, 1).mean)
    trees = [p.to_arviz(x, Y, n_draws=2, seed=1) for p in (posterior, on_host)]
    for group in ("log_likelihood", "constant_data"):
        for name, values in trees[1][group].data_vars.items():
            np.testing.assert_allclose(trees[0][group][name], values)
    rows = [({"a": row[:2], "rest": {"b": row[2:]}}, y) for row, y in zip(X, Y, strict=True)]
    loader = DataLoader(rows, batch_size=5)
    quick_fit(network_of(form), x=loader, y=None, n_data=13, device=DEVICE)


@pytest.mark.usefixtures("_device")
def test_a_prior_by_the_user_that_stays_on_the_host_raises():
    def prior(name, parameter):
        return dist.Normal(torch.zeros(parameter.shape), torch.ones(())).to_event(parameter.dim())

    with pytest.raises(RuntimeError, match="mixes devices"):
        quick_fit(small_network(prior=prior), engine="svi", device=DEVICE)


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize("elbo", [FusedELBO(), FusedELBO("mean_field", 2), Trace_ELBO()])
@pytest.mark.parametrize("make_guide", [MeanFieldGuide, auto_normal])
def test_a_training_loop_in_pyro_works_on_a_device(elbo, make_guide):
    network = small_network(device=DEVICE)
    guide = make_guide(network)
    if isinstance(elbo, FusedELBO) and make_guide is auto_normal:
        return
    x, y = (torch.as_tensor(t).to(DEVICE) for t in (X, Y))
    svi = SVI(network, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    assert np.isfinite(svi.step(x, y, 100))
    draws = Predictive(network, guide=guide, num_samples=3, parallel=True)(x)
    assert isinstance(draws["y"], DeviceTensor)


ESTIMATORS = {
    "gaussian": (BBBRegressor, {}, Y[:, 0]),
    "auto": (BBBRegressor, {"likelihood": "auto", "batch_size": 8}, np.hstack([Y, -Y])),
    "counts": (BBBRegressor, {"likelihood": "poisson"}, np.arange(13)),
    "classes": (BBBClassifier, {"early_stopping": True}, np.array(["a", "b"] * 6 + ["a"])),
}


def an_estimator(case, **options):
    kind, case_options, y = ESTIMATORS[case]
    some = {"hidden": (4,), "epochs": 2, "n_draws": 3, "restarts": 2, "random_state": 0}
    return kind(**{**some, "engine": "fused", **case_options, **options}), y


def predicted_by(estimator):
    prediction = estimator.predict_distribution(X)
    if isinstance(estimator, BBBClassifier):
        return prediction.probs
    return prediction.interval(0.8)


@pytest.mark.parametrize("case", ESTIMATORS)
def test_an_estimator_fits_and_predicts_on_a_device(case, tmp_path):
    on_host, y = an_estimator(case, engine="svi")
    with simulated_device():
        on_device = an_estimator(case, engine="svi", device=DEVICE)[0].fit(X, y)
        for chain in on_device.posterior_.chains:
            assert isinstance(chain.guide.loc, DeviceTensor)
            assert chain.example.device == DEVICE
        predicted = predicted_by(on_device)
        np.testing.assert_allclose(predicted, predicted_by(on_host.fit(X, y)), rtol=1e-5)
        on_device.save(tmp_path / "model")
        on_device.partial_fit(X, y)
    again = type(on_host).load(tmp_path / "model")
    assert again.device is None
    np.testing.assert_allclose(predicted_by(again), predicted, rtol=1e-5)


def test_a_loaded_estimator_continues_on_another_device(tmp_path):
    on_host, y = an_estimator("gaussian")
    on_host.fit(X, y).save(tmp_path / "model")
    again = BBBRegressor.load(tmp_path / "model")
    with simulated_device():
        again.set_params(device=DEVICE).partial_fit(X, y)
        assert all(chain.example.device == DEVICE for chain in again.posterior_.chains)


def test_an_estimator_refuses_a_device_that_does_not_exist():
    with pytest.raises(ValueError, match="`device` must be a torch device such as"):
        BBBRegressor(device="gpu").fit(X, Y[:, 0])


# A device without float64, as Apple's GPUs


@pytest.fixture
def _no_float64(monkeypatch):
    for name, module in [*sys.modules.items()]:
        if name.startswith("pyrobbb.") and hasattr(module, "supports_float64"):
            monkeypatch.setattr(module, "supports_float64", lambda device: device != DEVICE)
    with simulated_device(supports_float64=False):
        yield


@pytest.mark.usefixtures("_no_float64")
@pytest.mark.parametrize("engine", [pytest.param("svi", marks=pytest.mark.slow), "fused"])
@pytest.mark.parametrize("member", LIKELIHOODS)
def test_a_device_without_float64_fits_and_predicts(member, engine, tmp_path):
    y, likelihood = targets(member), LIKELIHOODS[member].likelihood
    network = small_network(LIKELIHOODS[member].n_units, likelihood=likelihood)
    options = {"engine": engine, "device": DEVICE, "dtype": "float32"}
    posterior = quick_fit(network, y=y, sample_weight=WEIGHTS, validation=(X, y), **options)
    assert isinstance(posterior.guide.loc, DeviceTensor)
    for value in results_of(posterior.predict(X, n_draws=5, seed=0), y).values():
        assert np.isfinite(value).all()
    by_tensor = posterior.predict(torch.as_tensor(X), n_draws=5, seed=0)
    assert by_tensor.log_prob(torch.as_tensor(y)).device.type == "cpu"
    posterior.save(tmp_path / "model")


@pytest.mark.usefixtures("_no_float64")
@pytest.mark.parametrize("case", ESTIMATORS)
def test_an_estimator_works_without_float64(case):
    estimator, y = an_estimator(case, device=DEVICE)
    assert np.isfinite(predicted_by(estimator.fit(X, y))).all()
    assert all(chain.example.dtype == torch.float32 for chain in estimator.posterior_.chains)


@pytest.mark.usefixtures("_no_float64")
def test_float64_is_refused_on_a_device_without_it():
    with pytest.raises(ValueError, match=r"'meta' does not support float64.*dtype=torch.float32"):
        quick_fit(device=DEVICE)


# After the fit


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the posteriors of all likelihoods, and where they are saved."""
    posteriors = {}
    for member, (likelihood, n_units, *_) in LIKELIHOODS.items():
        path = tmp_path_factory.mktemp("posteriors") / "one"
        posterior = quick_fit(small_network(n_units, likelihood=likelihood), y=targets(member))
        posterior.save(path)
        posteriors[member] = posterior, path
    return posteriors


def loaded_on_device(saved, member):
    likelihood, n_units, *_ = LIKELIHOODS[member]
    return Posterior.load(
        saved[member][1], small_network(n_units, device=DEVICE, likelihood=likelihood)
    )


def results_of(prediction, y):
    if hasattr(prediction, "probs"):
        names = ("probs", "label", "entropy", "expected_entropy", "mutual_information")
        results = {}
    else:
        names = ("mean", "sd", "epistemic_sd", "aleatoric_sd")
        half = prediction.rescaled(1.0, 0.5)
        results = {
            "interval": prediction.interval(),
            "central_level": prediction.central_level(y),
            "column": prediction.column(0).mean,
            "rescaled": half.quantile([0.1, 0.7]),
            "log_prob of the rescaled": half.log_prob(0.5 * y + 1.0),
        }
    results |= {"log_prob": prediction.log_prob(y), "sample": prediction.sample(seed=1)}
    return results | {name: getattr(prediction, name) for name in names}


@pytest.mark.parametrize("member", LIKELIHOODS)
def test_a_prediction_on_a_device_is_that_on_the_host_with_the_array_type_of_the_input(
    saved, member
):
    y = targets(member)
    expected = results_of(saved[member][0].predict(X, n_draws=5, seed=0), y)
    with simulated_device():
        posterior = loaded_on_device(saved, member)
        by_array = results_of(posterior.predict(X, n_draws=5, seed=0), y)
        # A tensor on another device is moved to the device of the network.
        x = torch.as_tensor(X)
        by_tensor = results_of(posterior.predict(x, n_draws=5, seed=0), torch.as_tensor(y))
    for name, value in expected.items():
        np.testing.assert_allclose(by_array[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
        values = by_tensor[name] if isinstance(value, tuple) else (by_tensor[name],)
        assert all(isinstance(v, DeviceTensor) for v in values), name


def test_a_posterior_saved_on_a_device_is_loaded_on_the_host(tmp_path):
    with simulated_device():
        on_device = quick_fit(device=DEVICE, restarts=2)
        on_device.save(tmp_path / "model")
    on_host = Posterior.load(tmp_path / "model")
    for chain, other in zip(on_host.chains, on_device.chains, strict=True):
        assert type(chain.guide.loc.data) is torch.Tensor
        assert chain.guide.loc.device.type == chain.example.device.type == "cpu"
        assert torch.equal(chain.guide.loc, other.guide.loc.host)


def test_a_posterior_saved_on_the_host_is_loaded_on_the_device_of_the_network(saved):
    with simulated_device():
        posterior = loaded_on_device(saved, "Poisson")
    assert isinstance(posterior.guide.loc, DeviceTensor)
    assert isinstance(posterior.example, DeviceTensor)


@pytest.mark.usefixtures("_device")
def test_all_functions_of_a_posterior_work_on_a_device(tmp_path):
    posterior = quick_fit(device=DEVICE)
    assert isinstance(posterior.draws(3)["0.weight"], DeviceTensor)
    assert isinstance(quick_fit(device=DEVICE, start=posterior).guide.loc, DeviceTensor)
    assert isinstance(update(posterior, X, Y, epochs=1, progress=False).guide.loc, DeviceTensor)
    pruned = prune(posterior, 0.5)
    assert pruned.predict(X, n_draws=3).mean.shape == Y.shape
    pruned.save(tmp_path / "pruned")
    tree = posterior.to_arviz(X, Y, n_draws=8)
    assert np.isfinite(tree["log_likelihood"]["y"]).all()
    prediction = posterior.predict(X, n_draws=8, seed=0)
    for score in (scores.nll, scores.rmse, scores.crps, scores.coverage):
        assert np.isfinite(score(prediction, Y)).all()


@pytest.mark.usefixtures("_device")
def test_the_crosscheck_holds_on_a_device():
    network = small_network(device=DEVICE, likelihood=likelihoods.Gaussian(0.5))
    assert crosscheck(network, X, Y, n_steps=2, n_draws=10).ok
