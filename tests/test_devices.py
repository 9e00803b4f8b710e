"""No tensor is made on the wrong device: whole fits on a far one, without a GPU at hand."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from far_device import DEVICE, Far, far_device, to_near
from members import LIKELIHOODS, PRIORS
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch.utils.data import DataLoader, TensorDataset

from pyrobbb import (
    BayesianNetwork,
    BBBClassifier,
    BBBRegressor,
    FusedELBO,
    MeanFieldGuide,
    Posterior,
    auto_normal,
    crosscheck,
    fit,
    likelihoods,
    mlp,
    priors,
    prune,
    scores,
    update,
)
from pyrobbb.elbo.fused_loss import FusedLoss

RNG = np.random.default_rng(0)
X = RNG.normal(size=(13, 3))
Y = X.sum(1, keepdims=True) + RNG.normal(size=(13, 1))
WEIGHTS = RNG.uniform(size=13)
OPTIONS = {"epochs": 1, "batch_size": 5, "seed": 0, "progress": False}


@pytest.fixture
def _far():
    with far_device():
        yield


def network(n_units=1, device="cpu", **parts):
    net = mlp(3, [4], n_units, "tanh", seed=0).double()
    return BayesianNetwork(net.to(device), **parts)


def quick_fit(own=None, x=X, y=Y, **options):
    return fit(network() if own is None else own, x, y, **{**OPTIONS, **options})


def targets(member):
    return LIKELIHOODS[member].y.sample((len(X),)).numpy()


# The far device itself


@pytest.mark.usefixtures("_far")
def test_what_is_far_computes_as_what_is_near():
    near = torch.randn(3, 4)
    far = near.to(DEVICE).requires_grad_()
    assert far.device == DEVICE
    (slope,) = torch.autograd.grad((far @ far.mT).tanh().sum(), far)
    near = near.requires_grad_()
    (expected,) = torch.autograd.grad((near @ near.mT).tanh().sum(), near)
    assert isinstance(slope, Far)
    assert torch.equal(slope.cpu(), expected)
    assert torch.equal(far.new_tensor(2.0).cpu(), torch.tensor(2.0))
    assert torch.equal(torch.tensor([1, 2], device=DEVICE).cpu(), torch.tensor([1, 2]))


FAULTS = {
    "a product": lambda far: far * torch.ones(3),
    "a number joined to others": lambda far: torch.stack([far.sum(), torch.zeros(())]),
    "a condition": lambda far: torch.where(torch.ones(3, dtype=torch.bool), far, far),
    "a near tensor changed": lambda far: torch.zeros(()).add_(far.sum()),
    "a place": lambda far: torch.ones(3)[torch.zeros(2, dtype=torch.long, device=DEVICE)],
}
ALLOWED = {
    "a number": lambda far: far * torch.tensor(2.0),
    "near places": lambda far: far[torch.tensor([2, 0])],
    "a copy": lambda far: far.new_empty(3).copy_(torch.ones(3)),
}


@pytest.mark.usefixtures("_far")
@pytest.mark.parametrize("fault", FAULTS)
def test_devices_do_not_mix(fault):
    with pytest.raises(RuntimeError, match="mixes devices"):
        FAULTS[fault](torch.ones(3, device=DEVICE))


@pytest.mark.usefixtures("_far")
@pytest.mark.parametrize("case", ALLOWED)
def test_what_a_gpu_allows_is_allowed(case):
    assert isinstance(ALLOWED[case](torch.ones(3, device=DEVICE)), Far)


# Steps


VARIANTS = {
    "sampled": {},
    "closed form, weighted rows": {"closed_form_kl": True, "weighted": True},
    "three draws": {"n_particles": 3, "weighted": True},
    "local": {"estimator": "local"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("member", LIKELIHOODS)
def test_the_fused_loss_is_far_where_its_inputs_are(member, variant):
    options = {"n_particles": 1, "weighted": False, **VARIANTS[variant]}
    n_particles, weighted = options.pop("n_particles"), options.pop("weighted")
    y = torch.as_tensor(targets(member))
    for prior in PRIORS if variant == "sampled" else ("StudentT", "ByName"):
        results = []
        for device in ("cpu", DEVICE):
            with far_device():
                own = network(
                    LIKELIHOODS[member].n_units,
                    device,
                    prior=PRIORS[prior][0],
                    likelihood=LIKELIHOODS[member].likelihood,
                )
                guide = MeanFieldGuide(own)
                loss = FusedLoss(own, guide, **options)
                x, own_y, row_weight = (
                    torch.as_tensor(t).to(device) for t in (X, y, WEIGHTS if weighted else X[:, 0])
                )
                pyro.set_rng_seed(1)
                points = tuple(point.detach() for _, point in own.point_parameters())
                with torch.no_grad(), pyro.validation_enabled(False):
                    step = loss(
                        guide.loc.detach(),
                        guide.rho.detach(),
                        points,
                        loss.noise(n_particles),
                        x,
                        own_y,
                        row_weight=row_weight if weighted else None,
                    )
            results.append(vars(step))
        near, far = results
        for name, value in far.items():
            parts = value if name == "d_points" else (value,)
            assert all(isinstance(part, Far) for part in parts), name
            torch.testing.assert_close(to_near(value), near[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("member", "guide"),
    [*((member, "mean_field") for member in LIKELIHOODS), (list(LIKELIHOODS)[2], "auto_normal")],
)
def test_a_far_fit_by_svi_is_the_near_one(member, guide):
    y, parts = targets(member), {"likelihood": LIKELIHOODS[member].likelihood}
    n_units = LIKELIHOODS[member].n_units
    options = {"engine": "svi", "guide": guide}
    near = quick_fit(network(n_units, **parts), y=y, **options)
    with far_device():
        far = quick_fit(network(n_units, **parts), y=y, device=DEVICE, **options)
    assert_same_guides(far, near)
    np.testing.assert_allclose(far.history.nelbo, near.history.nelbo, rtol=1e-12)


def assert_same_guides(far, near):
    pairs = zip(far.guide.parameters(), near.guide.parameters(), strict=True)
    for own, expected in pairs:
        assert isinstance(own, Far)
        torch.testing.assert_close(own.cpu(), expected.detach(), rtol=1e-12, atol=1e-13)


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
    "points": {"own": lambda: network(prior=priors.ByName({"*.bias": None}))},
    "full batch": {"batch_size": 13},
}


@pytest.mark.parametrize("case", FITS)
def test_every_option_of_fit_works_on_a_far_device(case):
    options = {**FITS[case]}
    own = options.pop("own", network)
    with far_device():
        posterior = quick_fit(own(), device=DEVICE, **options)
    assert all(isinstance(p, Far) for p in posterior.network.parameters())
    assert isinstance(posterior.guide.loc, Far)
    assert isinstance(posterior.example, Far)
    assert np.isfinite(posterior.history.nelbo).all()


@pytest.mark.usefixtures("_far")
def test_batches_of_a_loader_are_moved():
    loader = DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), 5)
    posterior = fit(network(), loader, n_data=13, epochs=1, progress=False, device=DEVICE)
    assert isinstance(posterior.guide.loc, Far)


@pytest.mark.usefixtures("_far")
def test_a_prior_of_the_users_own_that_stays_behind_is_seen():
    def prior(name, parameter):
        return dist.Normal(torch.zeros(parameter.shape), torch.ones(())).to_event(parameter.dim())

    with pytest.raises(RuntimeError, match="mixes devices"):
        quick_fit(network(prior=prior), engine="svi", device=DEVICE)


@pytest.mark.usefixtures("_far")
@pytest.mark.parametrize("elbo", [FusedELBO(), FusedELBO("mean_field", 2), Trace_ELBO()])
@pytest.mark.parametrize("make_guide", [MeanFieldGuide, auto_normal])
def test_a_loop_of_pyros_works_on_a_far_device(elbo, make_guide):
    own = network(device=DEVICE)
    guide = make_guide(own)
    if isinstance(elbo, FusedELBO) and make_guide is auto_normal:
        return
    x, y = (torch.as_tensor(t).to(DEVICE) for t in (X, Y))
    svi = SVI(own, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    assert np.isfinite(svi.step(x, y, 100))
    draws = Predictive(own, guide=guide, num_samples=3, parallel=True)(x)
    assert isinstance(draws["y"], Far)


ESTIMATORS = {
    "gaussian": (BBBRegressor, {}, Y[:, 0]),
    "auto": (BBBRegressor, {"likelihood": "auto", "batch_size": 8}, np.hstack([Y, -Y])),
    "counts": (BBBRegressor, {"likelihood": "poisson"}, np.arange(13)),
    "classes": (BBBClassifier, {"early_stopping": True}, np.array(["a", "b"] * 6 + ["a"])),
}


def an_estimator(case, **options):
    kind, own, y = ESTIMATORS[case]
    some = {"hidden": (4,), "epochs": 2, "n_draws": 3, "restarts": 2, "random_state": 0}
    return kind(**{**some, "engine": "fused", **own, **options}), y


def told_by(estimator):
    found = estimator.predict_distribution(X)
    return found.probs if isinstance(estimator, BBBClassifier) else found.interval(0.8)


@pytest.mark.parametrize("case", ESTIMATORS)
def test_an_estimator_fits_and_predicts_on_a_far_device(case, tmp_path):
    near, y = an_estimator(case, engine="svi")
    with far_device():
        far = an_estimator(case, engine="svi", device=DEVICE)[0].fit(X, y)
        assert all(isinstance(own.guide.loc, Far) for own in far.posterior_.chains)
        assert far.posterior_.example.device == DEVICE
        found = told_by(far)
        np.testing.assert_allclose(found, told_by(near.fit(X, y)), rtol=1e-5)
        far.save(tmp_path / "model")
        far.partial_fit(X, y)
    again = type(near).load(tmp_path / "model")
    assert again.device is None
    np.testing.assert_allclose(told_by(again), found, rtol=1e-5)


def test_an_estimator_that_was_loaded_goes_on_elsewhere(tmp_path):
    near, y = an_estimator("gaussian")
    near.fit(X, y).save(tmp_path / "model")
    again = BBBRegressor.load(tmp_path / "model")
    with far_device():
        again.set_params(device=DEVICE).partial_fit(X, y)
        assert again.posterior_.example.device == DEVICE


def test_a_device_that_is_not_there_is_refused_by_an_estimator():
    with pytest.raises(ValueError, match="`device` must be a torch device such as"):
        BBBRegressor(device="gpu").fit(X, Y[:, 0])


# A device without float64, as Apple's GPUs


@pytest.fixture
def _no_float64(monkeypatch):
    for module in ("estimators", "network", "placement", "sampling"):
        monkeypatch.setattr(f"pyrobbb.{module}.supports_float64", lambda device: device != DEVICE)
    with far_device(supports_float64=False):
        yield


@pytest.mark.usefixtures("_no_float64")
@pytest.mark.parametrize("engine", ["svi", "fused"])
@pytest.mark.parametrize("member", LIKELIHOODS)
def test_a_device_without_float64_fits_and_predicts(member, engine, tmp_path):
    y, likelihood = targets(member), LIKELIHOODS[member].likelihood
    own = network(LIKELIHOODS[member].n_units, likelihood=likelihood)
    options = {"engine": engine, "device": DEVICE, "dtype": "float32"}
    posterior = quick_fit(own, y=y, sample_weight=WEIGHTS, validation=(X, y), **options)
    assert isinstance(posterior.guide.loc, Far)
    for value in asked_of(posterior.predict(X, n_draws=5, seed=0), y).values():
        assert np.isfinite(value).all()
    by_tensor = posterior.predict(torch.as_tensor(X), n_draws=5, seed=0)
    assert by_tensor.log_prob(torch.as_tensor(y)).device.type == "cpu"
    posterior.save(tmp_path / "model")


@pytest.mark.usefixtures("_no_float64")
@pytest.mark.parametrize("case", ESTIMATORS)
def test_an_estimator_does_without_float64(case):
    estimator, y = an_estimator(case, device=DEVICE)
    assert np.isfinite(told_by(estimator.fit(X, y))).all()
    assert estimator.posterior_.example.dtype == torch.float32


@pytest.mark.usefixtures("_no_float64")
def test_float64_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match=r"'meta' does not support float64.*dtype=torch.float32"):
        quick_fit(device=DEVICE)


# What comes after


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Give the posteriors of all likelihoods, and where they are saved."""
    found = {}
    for member, (likelihood, n_units, *_) in LIKELIHOODS.items():
        path = tmp_path_factory.mktemp("posteriors") / "one"
        posterior = quick_fit(network(n_units, likelihood=likelihood), y=targets(member))
        posterior.save(path)
        found[member] = posterior, path
    return found


def loaded_far(saved, member):
    likelihood, n_units, *_ = LIKELIHOODS[member]
    return Posterior.load(saved[member][1], network(n_units, DEVICE, likelihood=likelihood))


def asked_of(prediction, y):
    if hasattr(prediction, "probs"):
        names = ("probs", "label", "entropy", "expected_entropy", "mutual_information")
        own = {}
    else:
        names = ("mean", "sd", "epistemic_sd", "aleatoric_sd")
        half = prediction.rescaled(1.0, 0.5)
        own = {
            "interval": prediction.interval(),
            "central_level": prediction.central_level(y),
            "column": prediction.column(0).mean,
            "rescaled": half.quantile([0.1, 0.7]),
            "its log_prob": half.log_prob(0.5 * y + 1.0),
        }
    own |= {"log_prob": prediction.log_prob(y), "sample": prediction.sample(seed=1)}
    return own | {name: getattr(prediction, name) for name in names}


@pytest.mark.parametrize("member", LIKELIHOODS)
def test_a_far_prediction_is_the_near_one_in_the_kind_of_the_input(saved, member):
    y = targets(member)
    expected = asked_of(saved[member][0].predict(X, n_draws=5, seed=0), y)
    with far_device():
        posterior = loaded_far(saved, member)
        by_array = asked_of(posterior.predict(X, n_draws=5, seed=0), y)
        # A tensor that is elsewhere is brought to where the network is.
        x = torch.as_tensor(X)
        by_tensor = asked_of(posterior.predict(x, n_draws=5, seed=0), torch.as_tensor(y))
    for name, value in expected.items():
        np.testing.assert_allclose(by_array[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
        values = by_tensor[name] if isinstance(value, tuple) else (by_tensor[name],)
        assert all(isinstance(v, Far) for v in values), name


def test_what_was_saved_far_is_loaded_near(tmp_path):
    with far_device():
        far = quick_fit(device=DEVICE, restarts=2)
        far.save(tmp_path / "model")
    near = Posterior.load(tmp_path / "model")
    for own, other in zip(near.chains, far.chains, strict=True):
        assert type(own.guide.loc.data) is torch.Tensor
        assert own.guide.loc.device.type == own.example.device.type == "cpu"
        assert torch.equal(own.guide.loc, other.guide.loc.near)


def test_what_was_saved_near_is_loaded_where_the_network_is(saved):
    with far_device():
        posterior = loaded_far(saved, "Poisson")
    assert isinstance(posterior.guide.loc, Far)
    assert isinstance(posterior.example, Far)


@pytest.mark.usefixtures("_far")
def test_a_far_posterior_serves_everything_that_takes_one(tmp_path):
    posterior = quick_fit(device=DEVICE)
    assert isinstance(posterior.draws(3)["0.weight"], Far)
    assert isinstance(quick_fit(device=DEVICE, start=posterior).guide.loc, Far)
    assert isinstance(update(posterior, X, Y, epochs=1, progress=False).guide.loc, Far)
    pruned = prune(posterior, 0.5)
    assert pruned.predict(X, n_draws=3).mean.shape == Y.shape
    pruned.save(tmp_path / "pruned")
    tree = posterior.to_arviz(X, Y, n_draws=8)
    assert np.isfinite(tree["log_likelihood"]["y"]).all()
    prediction = posterior.predict(X, n_draws=8, seed=0)
    for score in (scores.nll, scores.rmse, scores.crps, scores.coverage):
        assert np.isfinite(score(prediction, Y)).all()


@pytest.mark.usefixtures("_far")
def test_the_crosscheck_holds_on_a_far_device():
    own = network(device=DEVICE, likelihood=likelihoods.Gaussian(0.5))
    assert crosscheck(own, X, Y, n_steps=2, n_draws=10).ok
