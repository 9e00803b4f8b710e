"""Posteriors on disk: whole after any crash, and read with every check."""

import errno
import functools
import hashlib
import json
import math
import os
import random
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import Trace_ELBO
from safetensors.torch import load_file, save_file
from support import combined, posterior_of
from torch import nn

from pyrobbb import (
    BayesianNetwork,
    MeanFieldGuide,
    Posterior,
    auto_normal,
    fit,
    likelihoods,
    mlp,
    priors,
    storage,
)
from pyrobbb.fitted.history import History
from pyrobbb.storage import posteriors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = np.sin(X.sum(1, keepdims=True))
STORED = Path(__file__).parents[1] / "stored"


def fitted(net=None, prior=None, likelihood=None, y=Y, **kwargs):
    net = mlp(3, [6], 1, seed=0) if net is None else net
    network = BayesianNetwork(net, prior, likelihood)
    options = {"epochs": 5, "batch_size": 16, "seed": 0, "progress": False, **kwargs}
    return fit(network, X, y, **options)


def by_hand(network, guide=MeanFieldGuide, example=None, **settings):
    history = History(*[np.zeros(1)] * 3, np.zeros(1, int), np.ones(1, int))
    example = torch.zeros(1, 3) if example is None else example
    return posterior_of(network.eval(), guide(network), history, example, settings)


def with_batch_norm():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


WITHOUT_BATCH_NORM = priors.ByName({"1.*": None})


@pytest.fixture(scope="module")
def posterior():
    return fitted()


@pytest.fixture
def folder(posterior, tmp_path):
    posterior.save(tmp_path / "model")
    return tmp_path / "model"


def header_of(folder):
    return json.loads((folder / "posterior.json").read_text())


def edit(folder, **changes):
    (folder / "posterior.json").write_text(json.dumps({**header_of(folder), **changes}))


def tensors_file(folder):
    return folder / header_of(folder)["tensors"]["file"]


def sign(folder):
    """Put size and hash of the tensors, as they are now, into the header."""
    body = tensors_file(folder).read_bytes()
    reference = {"file": tensors_file(folder).name, "bytes": len(body)}
    edit(folder, tensors={**reference, "sha256": hashlib.sha256(body).hexdigest()})


def edit_tensors(folder, **changes):
    """Change or, with None, drop tensors, and sign them anew."""
    tensors = load_file(tensors_file(folder)) | changes
    save_file({n: t for n, t in tensors.items() if t is not None}, tensors_file(folder))
    sign(folder)


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


# There and back

CASES = {
    "defaults": {},
    "mixture": {"prior": priors.ScaleMixture(0.25, 1.5, 0.01), "guide": "auto_normal"},
    "by name": {
        "prior": priors.ByName({"*.bias": None, "0.*": priors.Laplace(0.3)}, priors.StudentT(4.0)),
        "likelihood": likelihoods.StudentT(df=5.0, noise_median=0.3),
    },
    "classes": {
        "net": mlp(3, [5, 4], 3, "tanh", seed=0),
        "likelihood": likelihoods.Categorical(),
        "y": np.arange(40) % 3,
    },
    "columns": {
        "net": mlp(3, [5], 2, seed=0),
        "likelihood": likelihoods.Gaussian(noise_median=(0.3, 2.0)),
        "y": np.concatenate([Y, Y], 1),
    },
    "double": {"net": mlp(3, [4], 1, seed=0).double(), "guide": "auto_normal"},
    "chains": {"restarts": 3},
    "linear": {"net": mlp(3, [], 1, seed=0), "likelihood": likelihoods.Gaussian(0.3)},
}


@pytest.mark.parametrize("name", CASES)
def test_a_posterior_comes_back_from_its_folder_whole(name, tmp_path):
    before = fitted(**CASES[name])
    before.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model")
    assert len(after.chains) == len(before.chains)
    for old, new in zip(before.chains, after.chains, strict=True):
        assert new.network.prior == old.network.prior
        assert new.network.likelihood == old.network.likelihood
        assert new.settings == old.settings
        assert not new.network.training
        assert type(new.guide) is type(old.guide)
        assert torch.equal(new.example, old.example)
        for part in ("network", "guide"):
            state = getattr(new, part).state_dict()
            for key, value in getattr(old, part).state_dict().items():
                assert torch.equal(state[key], value), key
                assert state[key].dtype == value.dtype, key
        for field, value in vars(old.history).items():
            np.testing.assert_array_equal(getattr(new.history, field), value)
    for key, value in before.draws(20, seed=0).items():
        assert torch.equal(value, after.draws(20, seed=0)[key])
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_elbo_is_the_same_after_loading_in_another_process(posterior, folder):
    """Trap 3: a prior or a scale that is lost on the way would change it."""
    program = f"""
        import torch
        from pyro.infer import Trace_ELBO
        from pyrobbb import Posterior
        torch.set_num_threads(1)
        posterior = Posterior.load({str(folder)!r})
        x = torch.tensor({X.tolist()}); y = torch.tensor({Y.tolist()})
        torch.manual_seed(7)
        print(repr(Trace_ELBO().loss(posterior.network, posterior.guide, x, y)))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    torch.manual_seed(7)
    x, y = torch.tensor(X.tolist()), torch.tensor(Y.tolist())
    assert float(run.stdout) == Trace_ELBO().loss(posterior.network, posterior.guide, x, y)


@pytest.mark.parametrize("guide", ["mean_field", "auto_normal"])
def test_a_module_of_ones_own_is_filled_from_the_folder_buffers_included(tmp_path, guide):
    before = fitted(with_batch_norm(), WITHOUT_BATCH_NORM, guide=guide)
    before.save(tmp_path / "model")
    with pytest.raises(ValueError, match="no plain `mlp`, and code is not stored: pass `network`"):
        Posterior.load(tmp_path / "model")
    network = BayesianNetwork(with_batch_norm(), WITHOUT_BATCH_NORM)
    after = Posterior.load(tmp_path / "model", network)
    assert after.network is network
    for name, value in before.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    np.testing.assert_array_equal(
        before.predict(X, n_draws=5, seed=0).mean, after.predict(X, n_draws=5, seed=0).mean
    )


def test_a_prior_of_ones_own_must_be_given_again(tmp_path):
    def own(name, parameter):
        return priors.Normal(0.5)(name, parameter)

    for prior in (own, priors.ByName({"*.bias": own})):
        fitted(prior=prior).save(tmp_path / "model")
        with pytest.raises(ValueError, match=r"the prior '.*own', and code is not stored: pass"):
            Posterior.load(tmp_path / "model")
        Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), prior))


def test_a_likelihood_of_ones_own_may_have_latents(tmp_path):
    def own(output):
        return dist.Normal(output, torch.exp(pyro_sample("log_noise", dist.Normal(0.0, 1.0))))

    def pyro_sample(name, distribution):
        import pyro

        return pyro.sample(name, distribution)

    before = fitted(likelihood=own)
    before.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), likelihood=own))
    assert torch.equal(before.draws(3, seed=0)["log_noise"], after.draws(3, seed=0)["log_noise"])


@dataclass(frozen=True, eq=False)
class Known:
    """A prior whose parameters are tensors."""

    loc: Mapping[str, torch.Tensor]
    scale: torch.Tensor

    def __call__(self, name, parameter):
        loc = self.loc[name].to(parameter)
        return dist.Normal(loc, self.scale.to(parameter)).expand(loc.shape).to_event(loc.dim())


def test_the_tensors_of_a_prior_are_stored_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(priors, "Known", Known, raising=False)
    monkeypatch.setattr(priors, "__all__", [*priors.__all__, "Known"])
    net = mlp(3, [6], 1, seed=0)
    loc = {name: torch.randn(p.shape) for name, p in net.named_parameters()}
    prior = priors.ByName({"*.weight": Known(loc, torch.tensor(0.5))})
    posterior = fitted(net, prior, restarts=2)
    posterior.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model").chains[1].network.prior.patterns["*.weight"]
    assert after.scale == 0.5
    assert all(torch.equal(after.loc[name], value) for name, value in loc.items())
    Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), prior))
    other = priors.ByName({"*.weight": Known(loc, torch.tensor(0.6))})
    with pytest.raises(ValueError, match="its prior has other values than that of the stored"):
        Posterior.load(tmp_path / "model", BayesianNetwork(mlp(3, [6], 1), other))
    edit_tensors(tmp_path / "model", **{"prior['*.weight']['scale']": None})
    with pytest.raises(ValueError, match=r"damaged: its prior\['\*.weight'\] has no tensor"):
        Posterior.load(tmp_path / "model")


def test_loading_leaves_the_random_state_alone(folder):
    torch.manual_seed(0)
    Posterior.load(folder)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


def test_numbers_of_numpy_are_saved_as_well(tmp_path):
    prior = priors.Normal(np.float32(0.3), np.int64(1))
    fitted(prior=prior, kl_warmup=np.float32(0.25), lr=np.float32(0.01)).save(tmp_path / "model")
    assert Posterior.load(tmp_path / "model").settings["kl_warmup"] == 0.25
    assert Posterior.load(tmp_path / "model").network.prior == prior


def test_settings_keep_what_json_has_and_the_names_of_callables(tmp_path):
    network = BayesianNetwork(mlp(3, [6], 1))
    noted = {"betas": (0.9, np.float64(0.99)), "is_quick": np.bool_(True), "schedule": math.cos}
    by_hand(network, n_data=40, **noted).save(tmp_path / "model")
    expected = {"betas": [0.9, 0.99], "is_quick": True, "schedule": "cos", "n_data": 40}
    assert Posterior.load(tmp_path / "model").settings == expected


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (math.nan, ValueError, r"`settings\['odd'\]` is nan, which JSON cannot hold"),
        ([1, np.inf], ValueError, r"`settings\['odd'\]\[1\]` is inf"),
        (np.zeros(2), TypeError, r"`settings\['odd'\]` is of type ndarray, which JSON cannot hold"),
        ({1: 2}, TypeError, r"`settings\['odd'\]` has the key 1: the keys must be strings"),
    ],
)
def test_what_json_cannot_hold_is_named_and_the_old_one_stays(folder, value, error, message):
    before = header_of(folder)
    with pytest.raises(error, match=message):
        by_hand(BayesianNetwork(mlp(3, [6], 1)), odd=value).save(folder)
    assert header_of(folder) == before


def test_the_header_says_what_data_it_is_of(tmp_path):
    fitted().save(tmp_path / "model")
    columns = {"shape": [3], "dtype": "float32"}, {"shape": [1], "dtype": "float32"}
    data = dict(zip("xy", columns, strict=True), n_data=40)
    assert header_of(tmp_path / "model")["data"] == data
    fitted(**CASES["classes"]).save(tmp_path / "model")
    labels = {"shape": [], "dtype": "int64"}
    assert header_of(tmp_path / "model")["data"] == {**data, "y": labels}


def test_a_module_that_takes_no_single_row_is_saved_without_the_schema_of_y(tmp_path):
    class Squeezed(nn.Linear):
        def forward(self, x):
            return super().forward(x).squeeze()

    before = fitted(Squeezed(3, 1), y=Y[:, 0])
    before.save(tmp_path / "model")
    assert header_of(tmp_path / "model")["data"]["y"] is None
    after = Posterior.load(tmp_path / "model", BayesianNetwork(Squeezed(3, 1)))
    assert torch.equal(after.guide.loc, before.guide.loc)


def test_chains_that_are_not_alike_cannot_be_saved_together(tmp_path):
    chains = [by_hand(BayesianNetwork(mlp(3, [6], 1), priors.Normal(s))) for s in (1.0, 2.0)]
    with pytest.raises(ValueError, match="must have one prior to be saved together: chain 1 has"):
        combined(chains).save(tmp_path / "model")
    with pytest.raises(ValueError, match="`chains` must hold at least one fit, got none"):
        storage.write(tmp_path / "model", [])


def test_another_guide_cannot_be_saved(tmp_path):
    class Other(MeanFieldGuide):
        pass

    network = BayesianNetwork(mlp(3, [6], 1))
    for guide in (lambda _: nn.Linear(1, 1), Other):
        with pytest.raises(TypeError, match=r"A guide of type \w+ cannot be saved"):
            by_hand(network, guide).save(tmp_path / "model")
    with pytest.raises(TypeError, match="`history` must be a History to be saved, got NoneType"):
        Posterior((replace(by_hand(network).chains[0], history=None),)).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_more_can_lie_in_the_same_folder(posterior, tmp_path):
    extra = {"estimator": {"name": "Regressor", "scale": np.float64(2.0), "columns": ("a", "b")}}
    tensors = {"mean": torch.arange(3.0), "classes": torch.arange(2)}
    storage.write(tmp_path / "model", posterior.chains, extra=extra, tensors=tensors)
    found, values = storage.read_extra(tmp_path / "model")
    assert found == {"estimator": {"name": "Regressor", "scale": 2.0, "columns": ["a", "b"]}}
    assert values.keys() == tensors.keys()
    assert all(torch.equal(values[name], tensors[name]) for name in tensors)
    after = Posterior.load(tmp_path / "model")
    assert torch.equal(after.guide.loc, posterior.guide.loc)
    for extra, error in (({"f": math.cos}, TypeError), ({"f": math.nan}, ValueError)):
        with pytest.raises(error, match=r"`extra\['f'\]` is"):
            storage.write(tmp_path / "model", posterior.chains, extra=extra)
    with pytest.raises(
        TypeError, match=r"'extra.odd' must be a dense tensor to be saved, got list"
    ):
        storage.write(tmp_path / "model", posterior.chains, tensors={"odd": [1.0]})
    posterior.save(tmp_path / "plain")
    assert storage.read_extra(tmp_path / "plain") == ({}, {})


@pytest.mark.parametrize("name", [p.stem for p in STORED.glob("format-*.json")])
def test_a_folder_that_was_written_once_is_read_for_ever(name):
    """`tests/stored/make.py` wrote it. If it cannot be read, mend the reader, not the folder."""
    recorded = json.loads((STORED / f"{name}.json").read_text())
    posterior = Posterior.load(STORED / name)
    assert len(posterior.chains) == 2
    for i, chain in enumerate(posterior.chains):
        np.testing.assert_allclose(chain.guide.loc.detach(), recorded["loc"][i], rtol=1e-7)
        np.testing.assert_allclose(chain.history.nelbo, recorded["nelbo"][i], rtol=1e-15)
        assert chain.settings["seed"] == i
        mixture = priors.ScaleMixture(0.25, 1.5, 0.1)
        assert chain.network.prior == priors.ByName({"*.bias": priors.Normal(2.0)}, mixture)
    x = np.linspace(-1.0, 1.0, 10, dtype=np.float32).reshape(5, 2)
    prediction = posterior.predict(x, n_draws=50, seed=0)
    np.testing.assert_allclose(prediction.mean, recorded["mean"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.aleatoric_sd, recorded["aleatoric_sd"], rtol=1e-4)


def test_this_version_has_a_stored_folder_of_its_format(folder):
    assert (STORED / f"format-{header_of(folder)['format']}").is_dir()


# Writing: the old one or the new one

SAVES = """
    import json, os, random, shutil, signal, sys, time
    import numpy as np, torch
    from pathlib import Path
    from pyrobbb import BayesianNetwork, MeanFieldGuide, Posterior, mlp
    from pyrobbb.fitted import FittedChain, History
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])

    def posterior(value, width):
        network = BayesianNetwork(mlp(5, [width], 1)).eval()
        guide = MeanFieldGuide(network)
        with torch.no_grad():
            for parameter in (*network.parameters(), *guide.parameters()):
                parameter.fill_(value)
        history = History(*[np.full(1, value)] * 3, np.zeros(1, int), np.ones(1, int))
        x, settings = torch.full((1, 5), value), {"value": value}
        return Posterior((FittedChain(network, guide, history, x, settings),))

    def found():
        try:
            read = Posterior.load(folder)
        except FileNotFoundError:
            return "none"
        values = {read.settings["value"], *read.history.nelbo, *read.example.flatten().tolist()}
        for part in (*read.network.parameters(), *read.guide.parameters()):
            values |= {part.min().item(), part.max().item()}
        assert len(values) == 1, values
        return values.pop()

    def strays():
        # Counts what is left of the dead after a save that comes an age later.
        for file in folder.iterdir():
            os.utime(file, (0, 0))
        last = found()
        {1.0: old, 2.0: new}[last].save(folder)
        return len(list(folder.iterdir())) - 2
"""
EVERY_LINE = """
    # At each line of folders.py that a save runs, and after each call to the system: the process
    # dies, or Ctrl-C is pressed.
    CALLS = {"open", "write", "flush", "fsync", "replace", "mkdir", "unlink", "rmdir", "close"}

    def run(n, deed, act):
        if act in (die_after, press_after):
            return run_calls(n, deed, act)
        count = 0
        def trace(frame, event, argument):
            nonlocal count
            if not frame.f_code.co_filename.endswith("folders.py"):
                return None
            if event == "line":
                count += 1
                if count == n:
                    sys.settrace(None)
                    act()
            return trace
        sys.settrace(trace)
        try:
            deed()
        finally:
            sys.settrace(None)

    def run_calls(n, deed, act):
        count = 0
        def profile(frame, event, argument):
            nonlocal count
            if event == "c_return" and argument.__name__ in CALLS:
                count += 1
                if count == n:
                    sys.setprofile(None)
                    act()
        sys.setprofile(profile)
        try:
            deed()
        finally:
            sys.setprofile(None)

    def die():
        os._exit(7)

    def press():
        raise KeyboardInterrupt

    def die_after():
        die()

    def press_after():
        press()

    old, new = posterior(1.0, 4), posterior(2.0, 8)
    def attempt(n, act):
        # Says whether the save went through.
        if act in (press, press_after):
            try:
                run(n, lambda: new.save(folder), act)
            except KeyboardInterrupt:
                return False
            return True
        child = os.fork()
        if child == 0:
            code = 3
            try:
                run(n, lambda: new.save(folder), act)
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 7), code
        return code == 0

    os.fsync = lambda handle: None  # takes its time, and changes nothing for those that read
    seen = []
    for act in (die, press, die_after, press_after):
        for start in ("none", 1.0):
            n, is_over = 0, False
            while not is_over:
                n += 1
                if start == 1.0:
                    old.save(folder)
                else:
                    shutil.rmtree(folder, ignore_errors=True)
                is_over = attempt(n, act)
                result = found()
                seen.append((act.__name__, start, result))
                left = len(list(folder.iterdir())) if folder.exists() else 0
                if act in (press, press_after) and result != 2.0:
                    assert left == (0 if start == "none" else 2), n
                assert n < 500
                assert result == "none" or strays() == 0, n
    print(json.dumps(seen))
"""
KILLS = """
    old, new = posterior(1.0, 20_000), posterior(2.0, 30_000)
    began = time.perf_counter()
    old.save(folder)
    duration = time.perf_counter() - began
    draw = random.Random(0)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    new.save(folder)
                    old.save(folder)
            finally:
                os._exit(3)
        time.sleep(draw.uniform(0, 4 * duration))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        print(found())
    old.save(folder)
    assert strays() == 0
"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forked")


def run_program(program, folder):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SAVES) + textwrap.dedent(program), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@forks
@pytest.mark.slow
def test_whichever_line_a_save_dies_in_the_old_one_or_the_new_one_is_there_whole(tmp_path):
    seen = json.loads(run_program(EVERY_LINE, tmp_path / "model"))
    for act in ("die", "press", "die_after", "press_after"):
        for start in ("none", 1.0):
            results = [r for a, s, r in seen if (a, s) == (act, start)]
            assert len(results) > 8
            turn = results.index(2.0)  # at one moment the old one gives way to the new one
            assert set(results[:turn]) == {start}
            assert set(results[turn:]) == {2.0}


@forks
@pytest.mark.slow
def test_a_process_killed_at_random_leaves_the_old_one_or_the_new_one_whole(tmp_path):
    found = run_program(KILLS, tmp_path / "model").split()
    assert len(found) == 20
    assert set(found) == {"1.0", "2.0"}


def test_all_is_on_the_disk_before_the_header_changes_and_the_old_goes_after(
    posterior, folder, monkeypatch
):
    """A process that dies loses nothing; a machine that does, what was not forced to the disk."""
    calls = []
    old = tensors_file(folder).name
    fsync, replace_, unlink = os.fsync, os.replace, os.unlink

    def kind(name):
        return {".json": "scratch", ".safetensors": "old" if name == old else "new"}[
            Path(name).suffix
        ]

    def recorded_fsync(handle):
        paths = [folder, *folder.iterdir()]
        path = next(p for p in paths if p.stat().st_ino == os.fstat(handle).st_ino)
        calls.append(f"fsync {'folder' if path == folder else kind(path.name)}")
        if path != folder:  # all of it has left Python's buffers
            calls.append(f"{kind(path.name)} is {'full' if path.stat().st_size > 500 else 'short'}")
        fsync(handle)

    def recorded_replace(source, target):
        calls.append(f"replace {Path(target).name} by {kind(Path(source).name)}")
        replace_(source, target)

    def recorded_unlink(path, *args, **kwargs):
        calls.append(f"unlink {kind(Path(path).name)}")
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    monkeypatch.setattr(os, "unlink", recorded_unlink)
    posterior.save(folder)
    assert calls == [
        "fsync new",
        "new is full",
        "fsync scratch",
        "scratch is full",
        "fsync folder",
        "replace posterior.json by scratch",
        "fsync folder",
        "unlink old",
    ]


def failure_of(posterior, folder):
    try:
        posterior.save(folder)
    except OSError as error:
        return error


@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_disk_that_is_full_leaves_the_old_one_and_nothing_else(
    posterior, tmp_path, monkeypatch, call, exists
):
    folder = tmp_path / "deep" / "model"
    other = fitted(prior=priors.Normal(2.0), epochs=1)
    own = getattr(os, call)
    n_failures = 0
    for n in range(1, 10):
        if exists:
            posterior.save(folder)
        before = names_in(folder) if exists else None
        count = 0

        def failing(*args, **kwargs):
            nonlocal count
            count += 1
            if count == n:  # noqa: B023 - called in this turn of the loop only
                raise OSError(errno.ENOSPC, "No space left on device")
            return own(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            failure = failure_of(other, folder)
        failed = failure is not None  # the folder itself may fail to be forced to the disk
        if failed:
            assert failure.errno == errno.ENOSPC
            assert f"`path` {str(folder)!r} cannot be written: No space left" in str(failure)
        n_failures += failed
        if not failed:
            assert Posterior.load(folder).network.prior == priors.Normal(2.0)
        elif exists:
            assert names_in(folder) == before
            assert Posterior.load(folder).network.prior == posterior.network.prior
        else:
            assert list(tmp_path.iterdir()) == []
        if not exists and folder.exists():
            for entry in folder.iterdir():
                entry.unlink()
            folder.rmdir()
            folder.parent.rmdir()
    assert n_failures or (call == "mkdir" and exists)


def test_a_file_that_can_be_written_in_part_only_is_removed(posterior, folder):
    resource = pytest.importorskip("resource")
    before = names_in(folder)
    size = tensors_file(folder).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, size - 1, size + 1):  # the last cuts nothing, the others the tensors
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            failure = failure_of(posterior, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (failure is None) == (limit > size)
        if failure is not None:
            assert "cannot be written: File too large" in str(failure)
            assert names_in(folder) == before
        Posterior.load(folder)
    assert names_in(folder) != before


def test_saving_again_replaces_the_posterior_and_leaves_others_alone(posterior, folder, tmp_path):
    (folder / "notes.txt").write_text("mine")
    (folder / "posterior-old.safetensors").write_text("mine as well")
    fitted(prior=priors.Normal(2.0)).save(folder)
    assert Posterior.load(folder).network.prior == priors.Normal(2.0)
    own = ["notes.txt", "posterior-old.safetensors"]
    assert names_in(folder) == sorted([*own, "posterior.json", tensors_file(folder).name])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"other'.*holds no posterior, but 'thesis.tex'"):
        posterior.save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "years of work"
    with pytest.raises(FileExistsError, match=r"thesis.tex' cannot be written: it is a file"):
        posterior.save(tmp_path / "other" / "thesis.tex")
    with pytest.raises(NotADirectoryError, match=r"`path` '.*model' cannot be written: Not a dir"):
        posterior.save(tmp_path / "other" / "thesis.tex" / "model")
    (tmp_path / "empty").mkdir()
    posterior.save(tmp_path / "empty")
    Posterior.load(tmp_path / "empty")


def test_a_folder_that_may_not_be_written_is_named(posterior, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(PermissionError, match=r"`path` '.*model' cannot be written: Permission"):
        posterior.save(tmp_path / "model")


def test_a_saved_folder_can_be_read_by_others(posterior, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("")
    posterior.save(tmp_path / "model")

    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(tmp_path / "model") == mode(tmp_path / "plain")
    for file in (tmp_path / "model").iterdir():
        assert mode(file) == mode(tmp_path / "plain" / "file")


def test_who_reads_while_another_saves_gets_the_new_one(posterior, folder, monkeypatch):
    other = fitted(prior=priors.Normal(2.0), epochs=1)
    read_bytes = Path.read_bytes
    is_first = True

    def interrupted(path):
        nonlocal is_first
        if path.suffix == ".safetensors" and is_first:  # between the header and the tensors
            is_first = False
            other.save(folder)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", interrupted)
    assert Posterior.load(folder).network.prior == priors.Normal(2.0)


def test_what_a_crash_has_left_goes_in_time_and_what_another_writes_now_stays(posterior, folder):
    ages = {"0" * 16: 10, "1" * 16: 4000}
    for token, age in ages.items():
        for name in (f"posterior-{token}.safetensors", f".posterior-{token}.json"):
            (folder / name).write_text("")
            os.utime(folder / name, (time.time() - age,) * 2)
    posterior.save(folder)
    young = [f".posterior-{'0' * 16}.json", f"posterior-{'0' * 16}.safetensors"]
    assert names_in(folder) == sorted([*young, "posterior.json", tensors_file(folder).name])


# Reading: every check


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no posterior \(no posterior.json\)"):
            Posterior.load(path)


def _flip(folder):
    body = bytearray(tensors_file(folder).read_bytes())
    body[-5] ^= 1
    tensors_file(folder).write_bytes(body)


def _write_signed(folder, content):
    tensors_file(folder).write_bytes(content)
    sign(folder)


def _without(folder, field):
    header = header_of(folder)
    del header[field]
    (folder / "posterior.json").write_text(json.dumps(header))


def _point_to(folder, name):
    edit(folder, tensors={**header_of(folder)["tensors"], "file": name})


NET = {"n_in": 3, "hidden": [6], "n_out": 1, "activation": "relu"}
DAMAGE = {
    "json cut": (lambda f: (f / "posterior.json").write_text('{"form'), "is no JSON"),
    "json deep": (lambda f: (f / "posterior.json").write_text("[" * 10**5), "is no JSON"),
    "json of bytes": (lambda f: (f / "posterior.json").write_bytes(b"\xff"), "is no JSON"),
    "json list": (lambda f: (f / "posterior.json").write_text("[]"), "must be an object, got"),
    "json nan": (lambda f: edit(f, extra={"a": math.nan}), "it holds the number NaN"),
    "json huge": (
        lambda f: (f / "posterior.json").write_text('{"format": 1e999}'),
        "it holds the number 1e999",
    ),
    "no format": (lambda f: _without(f, "format"), "'format' None, not a number"),
    "newer": (
        lambda f: edit(f, format=99, versions={"pyrobbb": "9.1"}),
        r"has format 99, written by pyrobbb '9.1'; .* reads format 2. Read it with the version",
    ),
    "older": (lambda f: edit(f, format=1), "has format 1, .* fit and save once more"),
    "no guide": (lambda f: _without(f, "guide"), "its posterior.json has no field 'guide'"),
    "guide of none": (lambda f: edit(f, guide=None), "has the 'guide' None, must be a string"),
    "evil guide": (
        lambda f: edit(f, guide="evil"),
        "'guide' 'evil', must be one of mean_field, auto_normal",
    ),
    "other guide": (
        lambda f: edit(f, guide="auto_normal"),
        r"guide's 'locs.noise_scale_unconstrained' has",
    ),
    "surplus field": (lambda f: edit(f, code="1"), "has the unknown field 'code'"),
    "versions": (lambda f: edit(f, versions={"torch": 2}), "'versions' has the 'torch' 2, must be"),
    "chains": (lambda f: edit(f, n_chains=10**9), "'n_chains' 1000000000 and 'settings' of 1"),
    "a chain more": (lambda f: edit(f, n_chains=2, settings=[{}, {}]), "must hold 'example'"),
    "settings": (lambda f: edit(f, settings=[3]), "'settings' must be a list of objects"),
    "tensors gone": (
        lambda f: tensors_file(f).unlink(),
        r"its file 'posterior-\w+.safetensors' is",
    ),
    "tensors cut": (
        lambda f: tensors_file(f).write_bytes(tensors_file(f).read_bytes()[:-100]),
        r"is truncated: it has \d+ of \d+ bytes",
    ),
    "tensors longer": (
        lambda f: tensors_file(f).write_bytes(tensors_file(f).read_bytes() + b"0"),
        "has been changed",
    ),
    "a bit flipped": (_flip, "has been changed"),
    "tensors of junk": (lambda f: _write_signed(f, b"abc"), "holds no tensors"),
    "tensors of pickle": (
        lambda f: _write_signed(f, b"cos\nsystem\n(S'1'\ntR."),
        "holds no tensors",
    ),
    "path upwards": (
        lambda f: _point_to(f, "../x"),
        r"names the file '\.\./x', must be posterior-",
    ),
    "path absolute": (lambda f: _point_to(f, "/etc/passwd"), "names the file '/etc/passwd', must"),
    "path within": (lambda f: _point_to(f, "posterior.json"), "names the file 'posterior.json'"),
    "a tensor less": (
        lambda f: edit_tensors(f, **{"chain-0.guide.rho": None}),
        r"its guide's 'rho' has shape \(32,\) here and none in the stored tensors",
    ),
    "a tensor more": (
        lambda f: edit_tensors(f, **{"chain-0.guide.more": torch.zeros(1)}),
        r"its guide's 'more' has shape none here and \(1,\) in the stored tensors",
    ),
    "a tensor astray": (
        lambda f: edit_tensors(f, stray=torch.zeros(1)),
        "its tensors hold 'stray', which belongs to no part",
    ),
    "a tensor of a chain astray": (
        lambda f: edit_tensors(f, **{"chain-0.stray": torch.zeros(1)}),
        "its tensors hold 'stray', which belongs to no part",
    ),
    "no example": (lambda f: edit_tensors(f, **{"chain-0.example": None}), "must hold 'example'"),
    "other example": (
        lambda f: edit_tensors(f, **{"chain-0.example": torch.zeros(1, 4)}),
        r"a row of x is \{'shape': \[4\]",
    ),
    "history": (
        lambda f: edit_tensors(f, **{"chain-0.history.kl": torch.zeros(2)}),
        r"its history's 'kl' must have shape \(15,\), got \(2,\)",
    ),
    "history less": (
        lambda f: edit_tensors(f, **{"chain-0.history.kl": None}),
        "its history must hold nelbo, nll, kl",
    ),
    "epochs": (
        lambda f: edit_tensors(f, **{"chain-0.history.epoch": torch.zeros(15)}),
        "its history's 'epoch' must not be torch.float32",
    ),
    "dtype of the guide": (
        lambda f: edit_tensors(f, **{"chain-0.guide.rho": torch.zeros(32).double()}),
        "its guide's 'rho' is torch.float32 here and torch.float64",
    ),
    "dtype of the net": (
        lambda f: edit_tensors(f, **{"chain-0.net.0.bias": torch.zeros(6).double()}),
        "its net's '0.bias' is torch.float32 here and torch.float64",
    ),
    "another net": (
        lambda f: edit(f, net={**NET, "hidden": [7]}),
        r"its net's '0.weight' has shape \(7, 3\) here and \(6, 3\) in the stored tensors",
    ),
    "a net too large": (lambda f: edit(f, net={**NET, "hidden": [10**9]}), r"\(1000000000, 3\)"),
    "a net too deep": (
        lambda f: edit(f, net={**NET, "hidden": [6] * 10**5}),
        "its net's '2.weight",
    ),
    "no hidden": (lambda f: edit(f, net={"n_in": 3}), "'net' has no field 'hidden'"),
    "half a unit": (lambda f: edit(f, net={**NET, "hidden": [0.5]}), "must be whole numbers"),
    "activation": (lambda f: edit(f, net={**NET, "activation": "exec"}), "must be one of relu"),
    "data": (
        lambda f: edit(f, data={**header_of(f)["data"], "y": {"shape": [2], "dtype": "int64"}}),
        "a row of y is .* here and .* in posterior.json",
    ),
    "no data": (
        lambda f: edit(f, data={**header_of(f)["data"], "n_data": 0}),
        "must be at least 1",
    ),
    "prior of none": (lambda f: edit(f, prior={"type": "None"}), "prior has the type 'None'"),
    "prior without type": (lambda f: edit(f, prior={}), "must be an object with a 'type'"),
    "prior's scale": (
        lambda f: edit(f, prior={"type": "Normal", "scale": -1.0, "loc": 0.0}),
        "its prior: `scale` must be positive, got -1.0",
    ),
    "prior's huge scale": (
        lambda f: edit(f, prior={"type": "Normal", "scale": 10**400, "loc": 0.0}),
        "its prior: ",
    ),
    "prior's parameter": (
        lambda f: edit(f, prior={"type": "Normal", "scale": 1.0, "loc": 0.0, "df": 1}),
        "prior has the unknown field 'df'",
    ),
    "prior by a name that is none": (
        lambda f: edit(f, prior=prior_by_name("9.*", {"type": "Normal", "scale": 1.0, "loc": 0.0})),
        "`patterns`: '9.*' matches no parameter",
    ),
    "prior by name": (
        lambda f: edit(f, prior=prior_by_name("0.*", {"type": "eval"})),
        r"prior\['0.\*'\] has the type 'eval', must be one of",
    ),
    "likelihood": (
        lambda f: edit(f, likelihood={"type": "StudentT", "scale": 1.0}),
        "likelihood has no field 'df'",
    ),
    "noise": (
        lambda f: edit(f, likelihood={**header_of(f)["likelihood"], "noise_median": [1.0, "a"]}),
        "its likelihood: `noise_median` must be a number, got 'a'",
    ),
}
CODE = ["os.system", "eval", "fan_in", "ScaleMixtureNormal", "Prior", "__import__", "priors.Normal"]
DAMAGE |= {
    f"{part} {kind}": (
        functools.partial(edit, **{part: {"type": kind, "name": "fan_in", "parameter": "id"}}),
        f"its {part} has the type '{kind}', must be one of",
    )
    for kind in CODE
    for part in ("prior", "likelihood")
}


def prior_by_name(pattern, prior):
    return {"type": "ByName", "patterns": {pattern: prior}, "default": {"type": "None"}}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_told_as_such(folder, name):
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        Posterior.load(folder)
    assert str(error.value).startswith(f"`path` {str(folder)!r} ")


def test_nothing_is_made_of_the_sizes_that_a_header_states(folder, monkeypatch):
    monkeypatch.setattr(posteriors, "mlp", lambda *_, **__: pytest.fail("it was made"))
    edit(folder, net={**NET, "hidden": [10**9]})
    with pytest.raises(ValueError, match="1000000000"):
        Posterior.load(folder)


@pytest.mark.parametrize("read", [storage.read, storage.read_extra])
def test_what_is_read_alone_is_checked_as_well(folder, read):
    _flip(folder)
    with pytest.raises(ValueError, match="has been changed"):
        read(folder)
    sign(folder)
    edit(folder, guide="evil")
    with pytest.raises(ValueError, match="'guide' 'evil'"):
        read(folder)


def test_a_network_that_is_not_the_stored_one_is_refused(folder):
    def load(net, *parts):
        return Posterior.load(folder, BayesianNetwork(net, *parts))

    with pytest.raises(ValueError, match=r"has the prior .*'scale': 3.0.*, the stored posterior"):
        load(mlp(3, [6], 1), priors.Normal(3.0))
    with pytest.raises(ValueError, match=r"has the likelihood .*'Poisson'.*, the stored posterior"):
        load(mlp(3, [6], 1), None, likelihoods.Poisson())
    message = r"`network` does not fit `path` '.*model': its net's '0.weight' has shape \(5, 3\)"
    with pytest.raises(ValueError, match=message + r" here and \(6, 3\) in the stored tensors"):
        load(mlp(3, [5], 1))
    with pytest.raises(ValueError, match=r"its net is MLPSpec.*'tanh'.*, the stored one .*'relu'"):
        load(mlp(3, [6], 1, "tanh"))
    with pytest.raises(ValueError, match=r"'2.bias' has shape none here and \(1,\) in"):
        load(nn.Sequential(nn.Linear(3, 6)))
    assert load(mlp(3, [6], 1).double()).guide.loc.dtype == torch.float32  # as it was stored


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, 10**9, -1, 0, "Normal", "custom", "None", "ByName", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places_in(value, place=()):
    """List the places of all values within a JSON value."""
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, own in value.items() if isinstance(value, dict) else inner:
        yield (*place, key)
        yield from places_in(own, (*place, key))


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    made = {}
    for name in ("by name", "chains", "mixture"):
        folder = tmp_path_factory.mktemp("victim") / "model"
        fitted(**CASES[name]).save(folder)
        made[name] = folder, (folder / "posterior.json").read_text()
    return made


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["by name", "chains", "mixture"]),
    st.lists(st.tuples(st.randoms(use_true_random=False), JSON_VALUES), min_size=1, max_size=3),
    st.sampled_from(["drop", "change", "add", "swap"]),
)
def test_whatever_a_header_says_it_is_read_or_refused_by_name(victims, name, mutations, deed):
    folder, text = victims[name]
    header = json.loads(text)
    for draw, value in mutations:
        places = list(places_in(header))
        if not places:
            break
        *way, key = draw.choice(places)
        inner = functools.reduce(lambda found, step: found[step], way, header)
        if deed == "drop":
            del inner[key]
        elif deed == "swap":
            other = draw.choice(places)
            inner[key] = json.loads(
                json.dumps(functools.reduce(lambda found, step: found[step], other, header))
            )
        elif deed == "add" and isinstance(inner, dict):
            inner[str(value)[:5]] = value
        else:
            inner[key] = value
    (folder / "posterior.json").write_text(json.dumps(header))
    assert_read_or_refused(folder)


def assert_read_or_refused(folder):
    message = None
    try:
        Posterior.load(folder)
    except (FileNotFoundError, ValueError) as error:
        message = str(error)
    assert message is None or str(folder) in message


@pytest.mark.parametrize("seed", range(100))
def test_whatever_signed_tensors_say_they_are_read_or_refused_by_name(victims, seed):
    folder, text = victims["by name"]
    (folder / "posterior.json").write_text(text)
    whole = tensors_file(folder).read_bytes()
    draw = random.Random(seed)
    body = bytearray(whole)
    n_header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(draw.randint(1, 4)):  # most often in the names, types and shapes
        place = draw.randrange(n_header if draw.random() < 0.8 else len(body))
        body[place] = draw.choice([draw.randrange(256), *b'0123456789,[]"'])
    try:
        _write_signed(folder, bytes(body))
        assert_read_or_refused(folder)
    finally:
        tensors_file(folder).write_bytes(whole)


@pytest.mark.parametrize("guide", [MeanFieldGuide, auto_normal])
def test_a_posterior_made_by_hand_is_saved_as_well(tmp_path, guide):
    before = by_hand(BayesianNetwork(mlp(3, [6], 1)), guide)
    before.draws(1)  # an autoguide makes its parameters when it first runs
    before.save(tmp_path / "model")
    after = Posterior.load(tmp_path / "model")
    assert torch.equal(before.draws(3, seed=0)["0.bias"], after.draws(3, seed=0)["0.bias"])
