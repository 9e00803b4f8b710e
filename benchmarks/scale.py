"""Kills, processes and files larger than memory: what benchmarks/SCALE.md reports.

    python benchmarks/scale.py kills [--kills 100]
    python benchmarks/scale.py processes
    python benchmarks/scale.py memory --folder FOLDER    # some 4 GB of files, removed at the end

Each prints a table in Markdown.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROWS = (10**5, 10**6, 10**7)
N_COLUMNS = 50
BOUND = 2**28  # max_memory, in bytes


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kills", "processes", "memory", "child"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where large files may be written")
    parser.add_argument("--task", help="what a child process does")
    options = parser.parse_args()
    if options.what == "child":
        name, *arguments = json.loads(options.task)
        globals()[name](*arguments)
    elif options.what == "kills":
        kills(options.kills)
    elif options.what == "processes":
        processes()
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            memory(Path(folder))


def child(*task: Any, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start this script in a process of its own, to do a task."""
    command = [sys.executable, *launcher, __file__, "child", "--task", json.dumps(task)]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


# Kills


def killed_fit(engine: str, checkpoint: str | None = None) -> Any:
    """Fit a small net in 2,000 steps."""
    import pyrobbb

    random = np.random.default_rng(0)
    x = random.normal(size=(1003, 13)).astype(np.float32)
    y = x.sum(1, keepdims=True).astype(np.float32)
    network = pyrobbb.BayesianNetwork(pyrobbb.mlp(13, [50], 1, seed=0))
    return pyrobbb.fit(
        network,
        x,
        y,
        epochs=250,
        engine=engine,
        seed=0,
        progress=False,
        checkpoint=checkpoint,
        every=20,
    )


def kills(n_kills: int) -> None:
    """Kill fits at random moments until there have been so many kills."""
    moments = random.Random(0)
    print("| engine | kills | fits ended | bitwise as without kills |\n|---|---|---|---|")
    for engine in ("fused", "compiled"):
        expected = killed_fit(engine)
        n, n_fits, n_same = 0, 0, 0
        while n < n_kills:
            with tempfile.TemporaryDirectory() as folder:
                n += kill_until_done(engine, folder, n_kills - n, moments)
                found = killed_fit(engine, folder)
            n_fits += 1
            n_same += all(
                np.array_equal(one, other)
                for one, other in (
                    (found.guide.loc.detach(), expected.guide.loc.detach()),
                    (found.guide.rho.detach(), expected.guide.rho.detach()),
                    (found.history.nelbo, expected.history.nelbo),
                )
            )
        print(f"| {engine} | {n} | {n_fits} | {n_same} |", flush=True)


def kill_until_done(engine: str, folder: str, at_most: int, moments: random.Random) -> int:
    """Start a fit again and again, each time killed a moment after it has begun to write.

    Returns how often.
    """
    for n in range(at_most):
        before = newest(folder)
        process = child("killed_fit", engine, folder)
        while process.poll() is None and newest(folder) == before:
            time.sleep(0.001)
        time.sleep(moments.expovariate(1 / 0.05))
        if process.poll() is not None:
            return n
        process.send_signal(signal.SIGKILL)
        process.wait()
    return at_most


def newest(folder: str) -> int:
    """Return when a checkpoint has been written last."""
    files = Path(folder).glob("checkpoint-*/posterior.json")
    return max((file.stat().st_mtime_ns for file in files), default=0)


# Processes


def shared_fit(width: int, out: str) -> None:
    """Fit a net of two hidden layers for 60 steps of 256 rows, and write down the seconds."""
    import torch

    import pyrobbb

    random = np.random.default_rng(0)
    x = random.normal(size=(256 * 30, 100)).astype(np.float32)
    y = x[:, :1] + random.normal(size=(len(x), 1)).astype(np.float32)
    torch.set_num_threads(1)
    seconds = []
    for epochs in (1, 3):
        network = pyrobbb.BayesianNetwork(pyrobbb.mlp(100, [width, width], 1, seed=0))
        posterior = pyrobbb.fit(
            network,
            x,
            y,
            epochs=epochs,
            batch_size=256,
            lr=1e-3,
            engine="fused",
            seed=0,
            progress=False,
            callbacks=lambda end: seconds.append(end.seconds),
        )
    if int(os.environ.get("RANK", 0)) == 0:
        each = (seconds[-1] - seconds[1]) / 60  # without the first epoch
        np.savez(out, seconds=each, loc=posterior.guide.loc.detach(), nelbo=posterior.history.nelbo)


def processes() -> None:
    """Fit the same in one, two and three processes."""
    print(
        "| hidden units | weights | processes | ms per step | means differ by | losses, relative |"
    )
    print("|---|---|---|---|---|---|")
    for width in (50, 400, 1200):
        alone = None
        for n in (1, 2, 3):
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
            with tempfile.TemporaryDirectory() as folder:
                out = f"{folder}/found.npz"
                child("shared_fit", width, out, launcher=launcher if n > 1 else ()).wait()
                found = dict(np.load(out))
            alone = found if alone is None else alone
            means = np.abs(found["loc"] - alone["loc"]).max()
            losses = np.abs(found["nelbo"] / alone["nelbo"] - 1).max()
            n_weights = len(found["loc"])
            print(
                f"| 2 x {width} | {n_weights:,} | {n} | {1e3 * found['seconds']:.2f} | "
                f"{means:.0e} | {losses:.0e} |",
                flush=True,
            )


# Memory


class Peak:
    """The most memory that the process itself has held: mapped files do not count."""

    def __init__(self, start: int) -> None:
        self.start = self.most = start
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_over.wait(0.005):
            self.most = max(self.most, anonymous())

    def stop(self) -> int:
        """Return how much more it was than at the start, in bytes."""
        self._is_over.set()
        self._thread.join()
        return self.most - self.start


def anonymous() -> int:
    """Return the memory of the process that is no file, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("This system does not report how much memory a process holds.")


def memory_of(what: str, kind: str, path: str, n_rows: int) -> None:
    """Fit to a file or predict it, one pass, and print what it took."""
    import torch

    import pyrobbb

    torch.set_num_threads(1)
    folder = Path(path)
    network = pyrobbb.BayesianNetwork(pyrobbb.mlp(N_COLUMNS, [50], 1, seed=0))
    small = np.zeros((10, N_COLUMNS), np.float32)
    options = {"epochs": 1, "batch_size": 1024, "engine": "fused", "seed": 0, "progress": False}
    posterior = pyrobbb.fit(network, small, small[:, :1], **options)
    posterior.predict(small, n_draws=2).mean  # noqa: B018 (what is imported at need)
    if kind == "memmap":
        x, y = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")
        unseen, data = x, (x, y)
    else:
        rows = pyrobbb.streams.Parquet(folder / "rows.parquet", ["y"])
        unseen = pyrobbb.streams.Parquet(folder / "rows.parquet", columns=rows.columns)
        data = (rows,)
    peak, start, n = Peak(anonymous()), time.perf_counter(), 0
    if what == "fit":
        pyrobbb.fit(network, *data, **options)
    else:
        for prediction in posterior.predict_chunks(unseen, n_draws=20, seed=0, max_memory=BOUND):
            n += len(prediction.mean)
        if n != n_rows:
            raise RuntimeError(f"{n} of {n_rows} rows were predicted.")
    print(json.dumps([peak.stop(), n_rows / (time.perf_counter() - start)]))


def write_files(folder: Path, n_rows: int) -> None:
    """Write the same rows as arrays and as parquet, a part at a time."""
    import pyarrow
    import pyarrow.parquet

    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (n_rows, N_COLUMNS))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (n_rows, 1))
    random, writer = np.random.default_rng(0), None
    for first in range(0, n_rows, 10**5):
        rows = random.normal(size=(10**5, N_COLUMNS)).astype(np.float32)
        target = rows[:, 0] + random.normal(size=10**5).astype(np.float32)
        x[first : first + 10**5], y[first : first + 10**5, 0] = rows, target
        columns = {f"x{i}": rows[:, i] for i in range(N_COLUMNS)}
        table = pyarrow.table({**columns, "y": target})
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(folder / "rows.parquet", table.schema)
        writer.write_table(table)
    writer.close()


def memory(folder: Path) -> None:
    """Fit to and predict files of three sizes."""
    print("| rows x 50 | file | kind | fit, MiB | rows/s | predict, MiB | rows/s |")
    print("|---|---|---|---|---|---|---|")
    for n_rows in ROWS:
        write_files(folder, n_rows)
        for kind, name in (("memmap", "x.npy"), ("parquet", "rows.parquet")):
            cells = []
            for what in ("fit", "predict"):
                found = child("memory_of", what, kind, str(folder), n_rows).communicate()[0]
                n_bytes, per_second = json.loads(found)
                cells += [f"{n_bytes / 2**20:.0f}", f"{per_second:,.0f}"]
            size = (folder / name).stat().st_size / 2**20
            print(f"| {n_rows:,} | {size:,.0f} MiB | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
