"""Folders of a header and tensors: intact after any crash, and checked when they are read."""

import errno
import json
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from stored_folders import (
    assert_refused,
    edit,
    fitted,
    flip_a_bit,
    header_of,
    names_in,
    tensors_file,
    write_signed,
)

from pyrobbb import Posterior, priors

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

    def n_leftovers():
        # Count the leftovers of the dead process after a save that comes much later.
        for file in folder.iterdir():
            os.utime(file, (0, 0))
        last = found()
        {1.0: old, 2.0: new}[last].save(folder)
        return len(list(folder.iterdir())) - 2
"""


EVERY_LINE = """
    # At each line of folders.py that a save runs, and after each system call, the process dies or
    # Ctrl-C is pressed.
    CALLS = {"open", "write", "flush", "fsync", "replace", "mkdir", "unlink", "rmdir", "close"}

    def run(n, save, act):
        if act in (die_after, press_after):
            return run_calls(n, save, act)
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
            save()
        finally:
            sys.settrace(None)

    def run_calls(n, save, act):
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
            save()
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
        # Return whether the save was completed.
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

    os.fsync = lambda handle: None  # it is slow, and does not change what a reader sees
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
                n_files = len(list(folder.iterdir())) if folder.exists() else 0
                if act in (press, press_after) and result != 2.0:
                    assert n_files == (0 if start == "none" else 2), n
                assert n < 500
                assert result == "none" or n_leftovers() == 0, n
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
    assert n_leftovers() == 0
"""


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


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
def test_save_that_dies_at_any_line_leaves_the_old_or_the_new_posterior(tmp_path):
    seen = json.loads(run_program(EVERY_LINE, tmp_path / "model"))
    for act in ("die", "press", "die_after", "press_after"):
        for start in ("none", 1.0):
            results = [r for a, s, r in seen if (a, s) == (act, start)]
            assert len(results) > 8
            first = results.index(2.0)  # the folder changes at a single moment
            assert set(results[:first]) == {start}
            assert set(results[first:]) == {2.0}


@forks
@pytest.mark.slow
def test_process_killed_at_random_leaves_the_old_or_the_new_posterior(tmp_path):
    found = run_program(KILLS, tmp_path / "model").split()
    assert len(found) == 20
    assert set(found) == {"1.0", "2.0"}


def test_files_are_flushed_before_the_header_is_replaced_and_old_tensors_removed_after(
    posterior, folder, monkeypatch
):
    """After a power cut, only what was flushed is on the disk."""
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
        if path != folder:  # Python's buffers have been written
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
def test_full_disk_leaves_the_old_posterior_and_nothing_else(
    posterior, tmp_path, monkeypatch, call, exists
):
    folder = tmp_path / "deep" / "model"
    other = fitted(prior=priors.Normal(2.0), epochs=1)
    original = getattr(os, call)
    n_failures = 0
    for n in range(1, 10):
        if exists:
            posterior.save(folder)
        before = names_in(folder) if exists else None
        count = 0

        def failing(*args, **kwargs):
            nonlocal count
            count += 1
            if count == n:  # noqa: B023 - called in this iteration only
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            failure = failure_of(other, folder)
        failed = failure is not None  # an error of fsync on the folder is ignored
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


def test_partially_written_file_is_removed(posterior, folder):
    resource = pytest.importorskip("resource")
    before = names_in(folder)
    size = tensors_file(folder).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, size - 1, size + 1):  # the last does not truncate the tensors
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


def test_saving_replaces_the_posterior_and_keeps_other_files(posterior, folder, tmp_path):
    (folder / "notes.txt").write_text("other")
    (folder / "posterior-old.safetensors").write_text("other")
    fitted(prior=priors.Normal(2.0)).save(folder)
    assert Posterior.load(folder).network.prior == priors.Normal(2.0)
    others = ["notes.txt", "posterior-old.safetensors"]
    assert names_in(folder) == sorted([*others, "posterior.json", tensors_file(folder).name])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("work")
    with pytest.raises(FileExistsError, match=r"other'.*holds no posterior, but 'thesis.tex'"):
        posterior.save(tmp_path / "other")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "work"
    with pytest.raises(FileExistsError, match=r"thesis.tex' cannot be written: it is a file"):
        posterior.save(tmp_path / "other" / "thesis.tex")
    with pytest.raises(NotADirectoryError, match=r"`path` '.*model' cannot be written: Not a dir"):
        posterior.save(tmp_path / "other" / "thesis.tex" / "model")
    (tmp_path / "empty").mkdir()
    posterior.save(tmp_path / "empty")
    Posterior.load(tmp_path / "empty")


def test_folder_without_write_permission_is_named(posterior, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(PermissionError, match=r"`path` '.*model' cannot be written: Permission"):
        posterior.save(tmp_path / "model")


def test_saved_files_have_the_default_permissions(posterior, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("")
    posterior.save(tmp_path / "model")

    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(tmp_path / "model") == mode(tmp_path / "plain")
    for file in (tmp_path / "model").iterdir():
        assert mode(file) == mode(tmp_path / "plain" / "file")


def test_reading_during_a_save_returns_the_new_posterior(posterior, folder, monkeypatch):
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


def test_saving_removes_old_leftovers_and_keeps_recent_files(posterior, folder):
    ages = {"0" * 16: 10, "1" * 16: 4000}
    for token, age in ages.items():
        for name in (f"posterior-{token}.safetensors", f".posterior-{token}.json"):
            (folder / name).write_text("")
            os.utime(folder / name, (time.time() - age,) * 2)
    posterior.save(folder)
    young = [f".posterior-{'0' * 16}.json", f"posterior-{'0' * 16}.safetensors"]
    assert names_in(folder) == sorted([*young, "posterior.json", tensors_file(folder).name])


def test_missing_folder_raises_file_not_found_error(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no posterior \(no posterior.json\)"):
            Posterior.load(path)


def _without(folder, field):
    header = header_of(folder)
    del header[field]
    (folder / "posterior.json").write_text(json.dumps(header))


def _point_to(folder, name):
    edit(folder, tensors={**header_of(folder)["tensors"], "file": name})


DAMAGE = {
    "no format": (
        lambda f: _without(f, "format"),
        "'format' in its posterior.json must be a whole number, got None",
    ),
    "newer": (
        lambda f: edit(f, format=99, versions={"pyrobbb": "9.1"}),
        r"has format 99, written by pyrobbb '9.1'; .* reads format 2. Read it with the version",
    ),
    "older": (lambda f: edit(f, format=1), "has format 1, .* fit and save again"),
    "tensors missing": (
        lambda f: tensors_file(f).unlink(),
        r"its file 'posterior-\w+.safetensors' is",
    ),
    "tensors truncated": (
        lambda f: tensors_file(f).write_bytes(tensors_file(f).read_bytes()[:-100]),
        r"is truncated: it has \d+ of \d+ bytes",
    ),
    "tensors longer": (
        lambda f: tensors_file(f).write_bytes(tensors_file(f).read_bytes() + b"0"),
        "has been changed",
    ),
    "a bit flipped": (flip_a_bit, "has been changed"),
    "tensors are garbage": (lambda f: write_signed(f, b"abc"), "is not a safetensors file"),
    "tensors are a pickle": (
        lambda f: write_signed(f, b"cos\nsystem\n(S'1'\ntR."),
        "is not a safetensors file",
    ),
    "path upwards": (
        lambda f: _point_to(f, "../x"),
        r"'file' in its 'tensors' must be posterior-<.*>\.safetensors, got '\.\./x'",
    ),
    "path absolute": (
        lambda f: _point_to(f, "/etc/passwd"),
        "must be posterior-<.*>.safetensors, got '/etc/passwd'",
    ),
    "path within": (
        lambda f: _point_to(f, "posterior.json"),
        "must be posterior-<.*>.safetensors, got 'posterior.json'",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folder_is_refused(folder, name):
    damage, message = DAMAGE[name]
    damage(folder)
    assert_refused(folder, message)
