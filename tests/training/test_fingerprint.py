"""A checkpoint of another fit is refused, whatever differs; that of the same fit is continued."""

import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import support
import torch
from pyro.infer import RenyiELBO
from support import Crash, assert_equal, crash_at
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyrobbb import BayesianNetwork, fit, likelihoods, mlp, priors
from pyrobbb.streams import Parquet
from pyrobbb.training.checkpoints import NAMES

X, Y = support.X.astype(np.float32), support.Y.astype(np.float32)
FACTOR = 1.0


class Scaled(nn.Module):
    """A network whose forward pass depends on attributes, buffers and a method."""

    def __init__(self, factor=1.0, offset=0.0, power=1, activation=torch.tanh):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
        self.factor, self.power, self.activation = factor, power, activation
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, x):
        return self.factor * self.last(self.activation(self.layer(x))) ** self.power + self.offset


def other_code(code):
    """Return a subclass of the same name whose forward pass is that code."""
    namespace = {}
    exec(f"def forward(self, x): return {code}", namespace)
    return type("Other", (Scaled,), {"forward": namespace["forward"]})()


class Power:
    def __init__(self, power):
        self.power = power

    def __call__(self, fraction):
        return (1 - fraction) ** self.power

    def method(self, fraction):
        return self(fraction)


def closure(power):
    def nested():
        return lambda fraction: (1 - fraction) ** power

    return nested()


def scaled_by_global(fraction):
    return FACTOR * (1 - fraction)


def calls_global(fraction):
    return scaled_by_global(fraction)


def with_default(power):
    def schedule(fraction, *, power=power):
        return (1 - fraction) ** power

    return schedule


def hooked(factor):
    net = mlp(3, [4], 1, seed=0)
    net[0].register_forward_hook(lambda module, inputs, output: output * factor)
    return net


def normal(scale):
    return lambda name, parameter: priors.Normal(scale)(name, parameter)


def stop_at(epoch):
    return lambda end: end.epoch == epoch


class StopAt:
    def __init__(self, epoch):
        self.epoch, self.seen = epoch, []

    def __call__(self, end):
        self.seen.append(end.epoch)
        return end.epoch == self.epoch


def sgd(momentum):
    return lambda p, lr: torch.optim.SGD(p, lr * 1e-3, momentum=momentum)


NETWORKS = {
    "initial weights": lambda v: mlp(3, [4], 1, seed=v),
    "frozen weights": lambda v: frozen(v),
    "buffer": lambda v: Scaled(offset=[0.0, 1.0][v]),
    "forward": lambda v: other_code(["self.last(self.layer(x))", "self.last(-self.layer(x))"][v]),
    "constant in forward": lambda v: other_code(f"self.last(self.layer(x)) + {v}"),
    "attribute": lambda v: Scaled(factor=[1.0, 2.0][v]),
    "activation": lambda v: Scaled(activation=[torch.tanh, torch.relu][v]),
    "lambda in the module": lambda v: Scaled(activation=[lambda h: h, lambda h: -h][v]),
    "module of torch": lambda v: nn.Sequential(mlp(3, [4], 1, seed=0), [nn.ELU(), nn.SELU()][v]),
    "its options": lambda v: nn.Sequential(mlp(3, [4], 1, seed=0), nn.Dropout([0.1, 0.2][v])),
    "hook": lambda v: hooked([1.0, 2.0][v]),
}


def frozen(value):
    net = Scaled()
    net.layer.requires_grad_(False).bias.fill_(value)
    return net


OPTIONS = {
    "schedule lambda": lambda v: {"schedule": [lambda f: 1 - f, lambda f: 1 - f * f][v]},
    "schedule constant": lambda v: {"schedule": [lambda f: 0.5, lambda f: 0.6][v]},
    "schedule closure": lambda v: {"schedule": closure(1 + v)},
    "schedule default": lambda v: {"schedule": with_default(1 + v)},
    "schedule instance": lambda v: {"schedule": Power(1 + v)},
    "schedule method": lambda v: {"schedule": Power(1 + v).method},
    "schedule partial": lambda v: {"schedule": functools.partial(pow, [0.5, 0.6][v])},
    "kl_weight callable": lambda v: {"kl_weight": lambda i, n: (1 + v) / n},
    "kl_weight number": lambda v: {"kl_weight": [0.5, 0.6][v]},
    "optimizer partial": lambda v: {
        "optimizer": functools.partial(torch.optim.AdamW, weight_decay=[0.1, 0.2][v])
    },
    "optimizer lambda": lambda v: {"optimizer": sgd([0.9, 0.8][v])},
    "objective": lambda v: {"objective": RenyiELBO([0.5, 0.6][v], 2), "engine": "svi"},
    "validation": lambda v: {"validation": (X[:5], Y[:5] + v)},
    "callbacks closure": lambda v: {"callbacks": stop_at(3 + v)},
    "callbacks instance": lambda v: {"callbacks": [StopAt(3 + v)]},
    "sample_weight": lambda v: {"sample_weight": np.linspace(v, 2, len(X))},
    "x": lambda v: {"x": np.vstack([X[:-1], X[-1:] + v])},
    "y": lambda v: {"y": np.vstack([Y[:-1], Y[-1:] + v])},
    "prior lambda": lambda v: {"prior": normal([1.0, 2.0][v])},
    "prior of a mixture": lambda v: {"prior": priors.ByName({"*.bias": normal(1.0 + v)})},
    "likelihood lambda": lambda v: {
        "likelihood": [
            lambda output: likelihoods.Gaussian(1.0)(output),
            lambda output: likelihoods.Gaussian(2.0)(output),
        ][v]
    },
}
SAID = {"buffer": "starting values", "frozen weights": "starting values"}
SAID["initial weights"] = "starting values"


def try_fit(net=None, x=X, y=Y, prior=None, likelihood=None, **options):
    """Fit in 4 epochs of 3 steps, with a checkpoint after each."""
    network = BayesianNetwork(mlp(3, [4], 1, seed=0) if net is None else net, prior, likelihood)
    options = {"callbacks": lambda end: None, "every": 3, **options}
    return support.quick_fit(network, x, y, **options)


def crash(folder, monkeypatch, **options):
    with monkeypatch.context() as patch:
        crash_at(patch, 6)
        with pytest.raises(Crash):
            try_fit(checkpoint=folder, **options)


MEMBERS = {name: lambda v, make=make: {"net": make(v)} for name, make in NETWORKS.items()}
MEMBERS |= OPTIONS


@pytest.mark.parametrize("name", MEMBERS)
def test_a_fit_that_differs_in_one_argument_is_refused(tmp_path, monkeypatch, name):
    make = MEMBERS[name]
    crash(tmp_path, monkeypatch, **make(0))
    argument = SAID.get(name, "network" if name in NETWORKS else name.split()[0])
    with pytest.raises(ValueError, match=rf"`checkpoint` .* another fit: its '{argument}.*resume"):
        try_fit(checkpoint=tmp_path, **make(1))
    assert_equal(try_fit(checkpoint=tmp_path, **make(0)), try_fit(**make(0)))


def test_globals_that_a_callable_uses_are_compared(tmp_path, monkeypatch):
    crash(tmp_path, monkeypatch, schedule=calls_global)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0)
    with pytest.raises(ValueError, match="its 'schedule' differs from that of this fit in code or"):
        try_fit(checkpoint=tmp_path, schedule=calls_global)
    monkeypatch.undo()
    try_fit(checkpoint=tmp_path, schedule=calls_global)


class Locked:
    """A schedule whose state cannot be read."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, fraction):
        return 1 - fraction


def test_what_cannot_be_compared_is_resumed_if_the_caller_vouches_for_it(tmp_path, monkeypatch):
    crash(tmp_path, monkeypatch, schedule=Locked())
    with pytest.raises(
        ValueError, match=r"its 'schedule' cannot be compared, because it holds a lock.*resume=True"
    ):
        try_fit(checkpoint=tmp_path, schedule=Locked())
    with pytest.raises(
        ValueError, match=r"'lr' is 0.01, that of this fit 0.02. Choose .*ginning\.\n"
    ):
        try_fit(checkpoint=tmp_path, schedule=Locked(), resume=True, lr=0.02)
    resumed = try_fit(checkpoint=tmp_path, schedule=Locked(), resume=True)
    assert_equal(resumed, try_fit(schedule=Locked()))


def test_resume_needs_a_checkpoint_and_a_flag():
    with pytest.raises(ValueError, match="`resume` needs the folder of the checkpoints"):
        try_fit(resume=True)
    with pytest.raises(TypeError, match="`resume` must be True or False, got str"):
        try_fit(resume="yes", checkpoint="nowhere")


def test_a_recording_callback_does_not_prevent_a_fit_from_being_resumed(tmp_path, monkeypatch):
    seen, stop = [], StopAt(9)
    callbacks = [lambda end: seen.append(end.epoch), stop]
    crash(tmp_path, monkeypatch, callbacks=callbacks)
    try_fit(checkpoint=tmp_path, callbacks=callbacks)
    assert seen == stop.seen == [1, 2, 3, 4]


def test_a_completed_fit_is_not_returned_for_another_one(tmp_path):
    try_fit(checkpoint=tmp_path, net=mlp(3, [4], 1, seed=0))
    with pytest.raises(ValueError, match="another fit: its 'starting values of the network' diff"):
        try_fit(checkpoint=tmp_path, net=mlp(3, [4], 1, seed=1))


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path, monkeypatch):
    crash(tmp_path, monkeypatch)
    from stored_folders import edit, header_of

    for name in NAMES:
        stored = header_of(tmp_path / name)["extra"]["fit"]
        stored["outline"] = stored.pop("fingerprint")
        edit(tmp_path / name, extra={"fit": stored})
    with pytest.raises(
        ValueError, match=r"written by an earlier version of pyrobbb.*delete the fol"
    ):
        try_fit(checkpoint=tmp_path)


class Rows(Dataset):
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.values[i], Y[i]


class Stream(IterableDataset):
    def __init__(self, values):
        self.values = values

    def __iter__(self):
        yield from zip(self.values, Y, strict=True)


def tensors_of(values):
    return TensorDataset(torch.as_tensor(values), torch.as_tensor(Y))


def changed_in(row):
    values = X.copy()
    values[row] += 1
    return values


def loader_fit(rows, every, **options):
    is_stream = isinstance(rows, IterableDataset)
    loader = DataLoader(rows, batch_size=10, shuffle=not is_stream)
    network = BayesianNetwork(mlp(3, [4], 1, seed=0))
    options = {"epochs": 4, "engine": "fused", "seed": 1, "progress": False, **options}
    return fit(network, loader, n_data=len(X), every=every, **options)


@pytest.mark.parametrize("kind", [tensors_of, Rows, Stream])
@pytest.mark.parametrize(("n_steps", "every"), [(5, 1), (6, 3)])
def test_other_data_behind_a_loader_are_refused(tmp_path, monkeypatch, kind, n_steps, every):
    def run(values, **options):
        return loader_fit(kind(values), every, **options)

    with monkeypatch.context() as patch:
        crash_at(patch, n_steps)
        with pytest.raises(Crash):
            run(X, checkpoint=tmp_path)
    refused = 0
    for row in range(len(X)):
        with monkeypatch.context() as patch:
            crash_at(patch, 0)
            try:
                run(changed_in(row), checkpoint=tmp_path)
            except ValueError as error:
                refused += "first batch" in str(error) or "does not repeat batch" in str(error)
            except Crash:  # the row was in no batch that has been read again
                pass
    # All rows after a completed epoch; 20 of 23 in its second batch.
    assert refused >= (len(X) if every == 3 else 20)
    assert_equal(run(X, checkpoint=tmp_path), run(X))


def test_a_completed_fit_of_other_data_behind_a_loader_is_refused(tmp_path):
    loader_fit(Rows(X), 3, checkpoint=tmp_path)
    for row in range(0, len(X), 5):
        with pytest.raises(ValueError, match=r"first batch|does not repeat batch \d of epoch 3"):
            loader_fit(Rows(changed_in(row)), 3, checkpoint=tmp_path)
    loader_fit(Rows(X), 3, checkpoint=tmp_path)


def write_parquet(path, values):
    columns = {f"x{i}": column for i, column in enumerate(values.T)}
    table = pyarrow.table({**columns, "y": Y[:, 0]})
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)


def parquet_fit(path, **options):
    return try_fit(x=Parquet(path, target=["y"]), y=None, **options)


def memmap_fit(path, **options):
    return try_fit(x=np.load(path, mmap_mode="r"), **options)


@pytest.mark.parametrize(
    ("write", "run"), [(write_parquet, parquet_fit), (np.save, memmap_fit)], ids=["parquet", "npy"]
)
@pytest.mark.parametrize("keeps_time", [True, False])
def test_a_file_that_has_changed_after_its_first_row_is_refused(
    tmp_path, monkeypatch, write, run, keeps_time
):
    path = tmp_path / "rows.npy"
    write(path, X)
    with monkeypatch.context() as patch:
        crash_at(patch, 6)
        with pytest.raises(Crash):
            run(path, checkpoint=tmp_path / "c")
    before = path.stat()
    for row in (1, 12, 22):
        write(path, changed_in(row))
        assert path.stat().st_size == before.st_size
        if keeps_time:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(ValueError, match="another fit: its 'x' differs"):
            run(path, checkpoint=tmp_path / "c")
    write(path, X)  # a small file is compared as a whole, whatever its time
    run(path, checkpoint=tmp_path / "c")


def test_a_large_file_is_compared_by_samples_size_and_time(tmp_path):
    from pyrobbb.streams import MappedRows

    def content():
        rows = MappedRows(np.load(tmp_path / "x.npy", mmap_mode="r"), np.zeros(2**20))
        return rows.content()

    values = np.zeros((2**20, 1))
    np.save(tmp_path / "x.npy", values)
    before = content()
    assert sum(part.nbytes for part in before["x"]) == 2**20
    assert len(before["files of x"]) == 1
    values[-1] = 1
    np.save(tmp_path / "x.npy", values)
    after = content()
    assert after["files of x"] != before["files of x"]
    assert not np.array_equal(after["x"][-1], before["x"][-1])


PROCESS = """
import json, sys
sys.path[:0] = {paths!r}
import test_fingerprint as t
t.try_fit(checkpoint=sys.argv[1], net=t.Scaled(activation=lambda h: h), schedule=t.calls_global,
          prior=t.normal(2.0), likelihood=lambda o: t.likelihoods.Gaussian(2.0)(o))
"""


def test_fingerprints_do_not_depend_on_the_process(tmp_path):
    here = Path(__file__)
    script = PROCESS.format(paths=[str(here.parent), str(here.parents[1])])
    stored = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": seed}
        # Other line numbers, and another folder.
        arguments = ["-c", "\n" * int(seed) + script, str(tmp_path / seed)]
        subprocess.run([sys.executable, *arguments], env=environment, check=True, cwd=tmp_path)
        header = json.loads((tmp_path / seed / NAMES[0] / "posterior.json").read_text())
        stored.append(header["extra"]["fit"]["fingerprint"])
    assert stored[0] == stored[1]
    assert all(entry["digest"] for entry in stored[0].values() if isinstance(entry, dict))
