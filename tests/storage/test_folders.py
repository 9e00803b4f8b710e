"""Folders of a header and tensors: intact after any crash, and checked when they are read."""

import errno
import os
import stat
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
    write_header,
    write_signed,
)

from pyrobbb import Posterior, priors
from pyrobbb._core import scratch_files
from pyrobbb._core.scratch_files import locked_file
from pyrobbb.storage import folder_reading


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
    opened = folder_reading.opened
    is_first = True

    def interrupted(path):
        nonlocal is_first
        if path.suffix == ".safetensors" and is_first:  # between the header and the tensors
            is_first = False
            other.save(folder)
        return opened(path)

    monkeypatch.setattr(folder_reading, "opened", interrupted)
    assert Posterior.load(folder).network.prior == priors.Normal(2.0)


def pair_of_names(token):
    return [f".posterior-{token * 16}.json", f"posterior-{token * 16}.safetensors"]


def test_saving_removes_leftovers_and_keeps_what_is_being_written(posterior, folder):
    for name in (*pair_of_names("0"), pair_of_names("1")[0], pair_of_names("2")[1]):
        (folder / name).write_text("")
    with locked_file(folder / pair_of_names("3")[1]):
        (folder / pair_of_names("3")[0]).write_text("")
        posterior.save(folder)
        writing = pair_of_names("3")
        assert names_in(folder) == sorted([*writing, "posterior.json", tensors_file(folder).name])
    posterior.save(folder)
    assert names_in(folder) == sorted(["posterior.json", tensors_file(folder).name])


def test_without_locks_only_old_leftovers_are_removed(posterior, folder, monkeypatch):
    monkeypatch.setattr(scratch_files, "fcntl", None)
    for token, age in {"0": 10, "1": 4000}.items():
        for name in pair_of_names(token):
            (folder / name).write_text("")
            os.utime(folder / name, (time.time() - age,) * 2)
    posterior.save(folder)
    assert names_in(folder) == sorted(
        [*pair_of_names("0"), "posterior.json", tensors_file(folder).name]
    )


def test_missing_folder_raises_file_not_found_error(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no posterior \(no posterior.json\)"):
            Posterior.load(path)


def _without(folder, field):
    header = header_of(folder)
    del header[field]
    write_header(folder, header)


def _point_to(folder, name):
    header = header_of(folder)
    write_header(
        folder, {**header, "tensors": {**header["tensors"], "file": name}}, is_signed=False
    )


DAMAGE = {
    "no format": (
        lambda f: _without(f, "format"),
        "'format' in its posterior.json must be a whole number, got None",
    ),
    "newer": (
        lambda f: edit(f, format=99, versions={"pyrobbb": "9.1"}),
        r"has format 99, written by pyrobbb '9.1'; .* reads formats 2 and 3. Read it with the ver",
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
