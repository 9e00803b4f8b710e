"""Fits in several processes against fits in one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pyrobbb import BayesianNetwork, Posterior, fit, mlp
from pyrobbb._core import distributed
from pyrobbb._core.distributed import Team
from pyrobbb.training.batches import sizes_of_process

HERE = Path(__file__).parent
RNG = np.random.default_rng(0)
X = RNG.normal(size=(101, 3)).astype(np.float32)
Y = (X.sum(1, keepdims=True) + RNG.normal(size=(101, 1))).astype(np.float32)
TOLERANCE = 1e-5
"""Relative: float32 sums in another order, over some hundred steps of Adam."""


def small_fit(net=None, x=X, **options):
    """Fit in batches of 20; the last has one row, so that some process has no row."""
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0) if net is None else net)
    options = {"epochs": 12, "batch_size": 20, "seed": 1, "engine": "fused", **options}
    return fit(network, x, Y, progress=False, **options)


CASES = {
    "fused": {},
    "svi": {"engine": "svi"},
    "compiled": {"engine": "compiled"},
    "full batch": {"batch_size": 200, "epochs": 60},
    "two rows": {"batch_size": 2, "epochs": 2},
    "closed form": {"objective": "mean_field", "n_particles": 2},
    "blundell": {"kl_weight": "blundell", "clip_norm": 10.0},
    "restarts": {"restarts": 2},
    "weighted": {"sample_weight": np.linspace(0, 2, 101)},
    "early stopping": {"validation": (X[:40], -Y[:40]), "patience": 2, "kl_warmup": 0.2},
    "different noise": {"processes": "own_noise"},
}

CHILD = """
import sys
sys.path.insert(0, {here!r})
import test_distributed
test_distributed.child({out!r})
"""


def child(out):
    """Fit every case in one of several processes, and save the posteriors."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    epochs_seen = []
    for name, options in CASES.items():
        small_fit(**options).save(f"{out}/{name}-{os.environ['RANK']}")
    small_fit(callbacks=lambda end: epochs_seen.append(end.epoch) or end.epoch == 3)
    assert epochs_seen == ([1, 2, 3] if dist.get_rank() == 0 else [])
    rank = dist.get_rank()
    check_disagreements(rank)
    assert "n_processes" not in small_fit(processes="alone").settings
    rows = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    try:
        loader = torch.utils.data.DataLoader(rows, batch_size=10)
        fit(BayesianNetwork(mlp(3, [4], 1)), loader, n_data=101, epochs=1)
    except ValueError as error:
        assert "DistributedSampler" in str(error)  # noqa: PT017
    else:
        raise AssertionError("A loader without a DistributedSampler was accepted.")
    sampler = torch.utils.data.DistributedSampler(rows, shuffle=True)
    loader = torch.utils.data.DataLoader(rows, batch_size=10, sampler=sampler)
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0))
    n_data = 101 + -101 % dist.get_world_size()  # the sampler repeats rows to fill the last batch
    shared = fit(network, loader, n_data=n_data, epochs=2, seed=1, progress=False)
    shared.save(f"{out}/loader-{rank}")
    assert shared.settings["batch_size"] == 10 * dist.get_world_size()
    loader = torch.utils.data.DataLoader(Share(rows), batch_size=10)
    network = BayesianNetwork(mlp(3, [4], 1, "tanh", seed=0))
    stream = fit(network, loader, n_data=101, epochs=2, seed=1, progress=False)
    stream.save(f"{out}/stream-{rank}")
    assert stream.history.n_rows.sum() == 2 * 101
    try:
        fit(network, loader, n_data=102, epochs=2, seed=1, progress=False)
    except ValueError as error:
        assert "yields 101 rows" in str(error)  # noqa: PT017
    else:
        raise AssertionError("A wrong `n_data` was accepted.")


def frozen(value):
    """Return a network of which only a frozen weight or a buffer may differ."""
    net = mlp(3, [4], 1, "tanh", seed=0)
    net.register_buffer("unused", torch.tensor(float(value)))
    return net


def check_disagreements(rank):
    """Check that processes with different arguments raise before the first exchange of tensors."""
    activations = nn.Tanh, nn.ReLU, nn.ELU
    same = mlp(3, [4], 1, "tanh", seed=0)
    disagreements = {
        "'lr' is 0.01 in process 0 and 1.01 in process 1": {"lr": 0.01 + rank},
        "'x' differs between process 0 and process 1": {"x": X + rank},
        "'schedule' differs between": {"schedule": lambda fraction: 1 - fraction / (1 + rank)},
        "'starting values of the network' differs between": {"net": mlp(3, [4], 1, seed=rank)},
        "'starting values of the network' differs": {"net": frozen(rank)},
        "'network' differs between": {
            "net": nn.Sequential(*same[:1], activations[rank](), same[2])
        },
        "'network' differs": {"net": mlp(3, [4 + rank], 1, seed=0)},
        "'number of callbacks' is 1 in process 0 and 2": {
            "callbacks": [lambda end: None] * (1 + rank)
        },
        "'checkpoint' is False in process 0 and True": {"checkpoint": "nowhere" if rank else None},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributed.broadcast", None)  # of tensors
        for message, options in disagreements.items():
            with pytest.raises(ValueError, match="All processes must call fit") as caught:
                small_fit(**options)
            assert message in str(caught.value), caught.value


class Share(torch.utils.data.IterableDataset):
    """The rows that belong to this process."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        import torch.distributed as dist

        for i in range(dist.get_rank(), len(self.rows), dist.get_world_size()):
            yield self.rows[i]


def launch(script, n_processes, *more, script_arguments=()):
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(n_processes), *more, str(script)),
            *script_arguments,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return the folder in which n processes save their posteriors; they are launched once."""
    folders = {}

    def launch_once(n_processes):
        if n_processes not in folders:
            folder = tmp_path_factory.mktemp("processes")
            script = folder / "child.py"
            script.write_text(CHILD.format(here=str(HERE), out=str(folder)))
            done = launch(script, n_processes)
            assert done.returncode == 0, done.stderr[-3000:]
            folders[n_processes] = folder
        return folders[n_processes]

    return launch_once


@pytest.fixture(params=[2, pytest.param(3, marks=pytest.mark.slow)])
def fitted(request, folder_of):
    return folder_of(request.param), request.param


@pytest.mark.parametrize("name", [*CASES, "loader", "stream"])
def test_every_process_ends_with_the_same_posterior(fitted, name):
    folder, n_processes = fitted
    first, *others = (Posterior.load(folder / f"{name}-{rank}") for rank in range(n_processes))
    for other in others:
        for mine, theirs in zip(first.chains, other.chains, strict=True):
            assert torch.equal(mine.guide.loc, theirs.guide.loc)
            assert torch.equal(mine.guide.rho, theirs.guide.rho)
            np.testing.assert_array_equal(mine.history.nelbo, theirs.history.nelbo)


ALONE = [
    pytest.param(name, marks=pytest.mark.slow) if name == "compiled" else name
    for name in CASES
    if name != "different noise"
]


@pytest.mark.parametrize("name", ALONE)
def test_several_processes_fit_what_one_process_fits_with_the_same_batches(fitted, name):
    folder, n_processes = fitted
    together, alone = Posterior.load(folder / f"{name}-0"), small_fit(**CASES[name])
    for mine, theirs in zip(together.chains, alone.chains, strict=True):
        for part in ("loc", "rho"):
            torch.testing.assert_close(
                getattr(mine.guide, part), getattr(theirs.guide, part), rtol=1e-4, atol=TOLERANCE
            )
        for values in ("nelbo", "nll", "kl", "validation_nll"):
            np.testing.assert_allclose(
                getattr(mine.history, values), getattr(theirs.history, values), rtol=TOLERANCE
            )
        np.testing.assert_array_equal(mine.history.n_rows, theirs.history.n_rows)
    for chain in together.chains:
        assert chain.settings["n_processes"] == n_processes


def test_with_different_noise_per_process_the_fit_is_close(fitted):
    folder, _ = fitted
    different, same = (
        Posterior.load(folder / f"{name}-0") for name in ("different noise", "fused")
    )
    difference = (different.guide.loc - same.guide.loc).abs().max()
    assert 1e-4 < difference < 1
    half = slice(-36, None)  # two such means of one loss differ by 14 % over 30 fits
    np.testing.assert_allclose(
        different.history.nelbo[half].mean(), same.history.nelbo[half].mean(), rtol=0.2
    )


def test_the_parts_of_a_batch_add_up_to_the_batch():
    sizes = np.arange(1, 12)
    for n in (1, 2, 3, 5):
        parts = np.stack([sizes_of_process(sizes, Team(rank, n)) for rank in range(n)])
        np.testing.assert_array_equal(parts.sum(0), sizes)
        assert (parts.max(0) - parts.min(0)).max() <= 1


DYING = """
import os, signal, sys
sys.path.insert(0, {here!r})
import test_distributed
from pyrobbb.engines.fused import FusedEngine

original = FusedEngine.run

def run(self, steps, losses):
    if self.n_steps >= 128 and os.environ["RANK"] == "1" and {is_first}:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, steps, losses)

FusedEngine.run = run
EVERY = {{"every": 64}}
is_first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
options = dict(epochs=40, checkpoint={out!r} + "/c", processes={noise!r}, **EVERY)
posterior = test_distributed.small_fit(**options)
posterior.save({out!r} + "/" + os.environ["RANK"])
"""


@pytest.mark.parametrize("noise", [pytest.param("same_noise", marks=pytest.mark.slow), "own_noise"])
def test_when_a_process_dies_torchrun_resumes_from_the_checkpoint(tmp_path, noise):
    results = []
    for name in ("whole", "dying"):
        out = tmp_path / name
        out.mkdir()
        script = out / "script.py"
        is_first = "is_first" if name == "dying" else "False"
        script.write_text(
            DYING.format(here=str(HERE), out=str(out), is_first=is_first, noise=noise)
        )
        done = launch(script, 2, "--max-restarts=3")
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("exitcode: -9" in done.stderr) == (name == "dying")
        results += [Posterior.load(out / str(rank)) for rank in (0, 1)]
    for other in results[1:]:
        assert torch.equal(results[0].guide.loc, other.guide.loc)
        np.testing.assert_array_equal(results[0].history.nelbo, other.history.nelbo)


def test_when_a_process_dies_the_job_ends_within_seconds_with_an_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        DYING.format(here=str(HERE), out=str(tmp_path), is_first="True", noise="same_noise")
    )
    began = time.monotonic()
    done = launch(script, 2)
    assert done.returncode != 0
    assert time.monotonic() - began < 60  # most of it is imports
    assert "rank      : 1" in done.stderr
    assert (tmp_path / "c" / "checkpoint-1").exists()


def test_a_lost_process_raises_with_a_remedy(monkeypatch):
    def lost(*arguments, **options):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1234\nmore")

    monkeypatch.setattr("torch.distributed.all_reduce", lost)
    with pytest.raises(ConnectionError, match="Process 1 of 3 cannot reach the others") as caught:
        Team(1, 3).sum([torch.ones(2)])
    assert "--max-restarts" in str(caught.value)
    assert "Connection closed by peer" in str(caught.value)


VARIABLES = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29543"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("RANK", "x", r"RANK must be a whole number from 0 to 1, got 'x': unset RANK, WORLD_SIZE"),
        ("RANK", "", "RANK must be a whole number from 0 to 1, got ''"),
        ("RANK", "2", "RANK must be a whole number from 0 to 1, got '2'"),
        ("RANK", "-1", "RANK must be a whole number from 0 to 1, got '-1'"),
        ("WORLD_SIZE", "0", "WORLD_SIZE must be a whole number of at least 1, got '0'"),
        ("WORLD_SIZE", "2.0", r"WORLD_SIZE must be a whole number of at least 1, got '2\.0'"),
        ("MASTER_PORT", "99999", "MASTER_PORT must be a whole number from 0 to 65535, got '99999'"),
    ],
)
def test_variables_of_torchrun_that_are_no_numbers_are_named(monkeypatch, name, text, message):
    for variable, value in (VARIABLES | {name: text}).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        small_fit()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_left_over_variables_of_torchrun_end_in_an_error(monkeypatch, rank):
    for variable, value in (VARIABLES | {"RANK": rank}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 1.0)
    with pytest.raises(
        distributed.LostProcessError,
        match=rf"RANK={rank} and WORLD_SIZE=2 are set, but the other .* have not joined in 1 s at "
        r"127\.0\.0\.1:29543: unset RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
    ):
        small_fit()


def test_batch_norm_raises_in_several_processes():
    from pyrobbb.training.data_source import open_batches

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"batch norm, .* use nn.GroupNorm"):
        open_batches(BayesianNetwork(net), X, Y, None, 20, None, Team(0, 2))


def test_process_noise_must_be_a_known_option():
    with pytest.raises(ValueError, match="`processes` must be one of same_noise, own_noise, alone"):
        small_fit(processes="many")


def test_the_command_line_fits_in_several_processes(tmp_path):
    table = tmp_path / "table.csv"
    np.savetxt(table, np.hstack([X, Y]), delimiter=",", header="a,b,c,y", comments="")
    command = Path(sys.executable).parent / "pyrobbb"
    out = tmp_path / "model"
    fitting = ["fit", str(table), "--target", "y", "--out", str(out), "--epochs", "3"]
    options = ["--restarts", "1", "--hidden", "4"]
    done = launch(command, 2, "--no-python", script_arguments=[*fitting, *options])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Fitted") == 1
    assert Posterior.load(out).settings["n_processes"] == 2


DYING_COMMAND = """
import os, signal, sys
from pyrobbb import cli
from pyrobbb.training import checkpoints
from pyrobbb.engines.fused import FusedEngine

original = FusedEngine.run

def run(self, steps, losses):
    is_first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if self.n_steps >= {n_steps} and os.environ["RANK"] == "1" and is_first:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, steps, losses)

FusedEngine.run = run
checkpoints.SECONDS, checkpoints.MAX_WRITING_SHARE = 0.0, 1e9
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_command_line_resumes_from_its_checkpoint(tmp_path):
    table = tmp_path / "table.csv"
    np.savetxt(table, np.hstack([X, Y]), delimiter=",", header="a,b,c,y", comments="")
    fitting = ["fit", str(table), "--target", "y", "--epochs", "300", "--restarts", "1"]
    models = []
    for n_steps in (10**9, 200):
        folder = tmp_path / str(n_steps)
        folder.mkdir()
        script = folder / "script.py"
        script.write_text(DYING_COMMAND.format(n_steps=n_steps))
        places = ["--out", str(folder / "model"), "--checkpoint", str(folder / "progress")]
        done = launch(script, 2, "--max-restarts=1", script_arguments=[*fitting, *places])
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("exitcode: -9" in done.stderr) == (n_steps == 200)
        assert (folder / "progress" / "fit-1" / "checkpoint-1").exists()
        models.append(Posterior.load(folder / "model"))
    assert torch.equal(models[0].guide.loc, models[1].guide.loc)


LEAVING = """
import atexit, os, sys
from pathlib import Path
sys.path.insert(0, {here!r})

@atexit.register  # runs last
def print_threads():
    tasks = Path("/proc/self/task").iterdir()
    names = " ".join((task / "comm").read_text().strip() for task in tasks)
    os.write(1, f"threads: {{names}}\\n".encode())  # in one write, as the processes share a pipe

import test_distributed
test_distributed.small_fit()
import torch._dynamo  # what torch's optimisers do
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Needs /proc/self/task.")
def test_no_connection_thread_is_left_at_the_end(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LEAVING.format(here=str(HERE)))
    done = launch(script, 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("threads: ") == 2
    assert "gloo" not in done.stdout
