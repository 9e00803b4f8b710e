"""Writing of tables in chunks: complete files, atomic replacement and early errors."""

import os

import pandas as pd
import pytest
from forks import forking

from pyrobbb.tables import TableError, TableFile
from pyrobbb.tables.writer import SUFFIXES, check_file, check_model_folder, open_writer

CELLS = [["1", "a"], ["2", "b, c"], ["", 'd "e"']]
FRAME = pd.DataFrame(CELLS, columns=["x", "y"])
TEXT = FRAME.to_csv(index=False)


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.csv.gz", "out.tsv.gz", "out.parquet"])
def test_chunks_are_written_to_one_table(tmp_path, name):
    with open_writer(tmp_path / name) as write:
        write(FRAME.iloc[:2])
        write(FRAME.iloc[2:])
    assert TableFile.of(tmp_path / name).read().to_numpy().tolist() == CELLS
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_chunk_without_values_does_not_determine_the_type_of_a_column(tmp_path):
    with open_writer(tmp_path / "out.parquet") as write:
        write(pd.DataFrame({"x": [None, None]}))
        write(pd.DataFrame({"x": ["a", None]}))
    cells = TableFile.of(tmp_path / "out.parquet").read()["x"]
    assert cells.dropna().to_dict() == {3: "a"}


def write_half(path):
    with open_writer(path) as write:
        write(FRAME)
        raise RuntimeError("midway")


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_a_failure_keeps_the_old_file_and_nothing_else(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(RuntimeError, match="midway"):
        write_half(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_followed_and_kept(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with open_writer(tmp_path / "link.csv") as write:
        write(FRAME)
    assert (tmp_path / "link.csv").is_symlink()
    assert TableFile.of(tmp_path / "real.csv").read().to_numpy().tolist() == CELLS


def test_a_pipe_is_written_to_directly(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open_writer(path) as write:
        write(FRAME)
    assert os.read(reader, 1000).decode() == TEXT
    os.close(reader)
    assert path.is_fifo()


def test_the_error_names_a_device_without_space(full_device):
    message = "full: cannot be written: No space left"
    with pytest.raises(TableError, match=message), open_writer(full_device) as write:
        write(FRAME)
    assert full_device.is_char_device()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.xlsx", "must end in .csv, .tsv"),
        ("none/out.csv", "cannot be written: there is no folder"),
        ("file/out.csv", "cannot be written: there is no folder"),
        ("folder.csv", "is a folder; pass a file"),
    ],
)
def test_check_file_raises_if_a_file_cannot_be_written(tmp_path, name, message):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match=message):
        check_file(tmp_path / name, SUFFIXES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "exists and is not a model"),
        ("file/model", "is a file"),
        (".", "exists and is not a model"),
        ("/proc/model", "cannot be written in '/proc'"),
    ],
)
def test_check_model_folder_raises_if_a_folder_cannot_be_written(tmp_path, name, message):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TableError, match=message):
        check_model_folder(tmp_path / name)
    check_model_folder(tmp_path / "new" / "model")
    (tmp_path / "empty").mkdir()
    check_model_folder(tmp_path / "empty")
    (tmp_path / "empty").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@forking
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_what_a_killed_process_has_left_is_removed_at_the_next_writing(tmp_path, name):
    child = os.fork()
    if child == 0:
        with open_writer(tmp_path / name) as write:
            write(FRAME)
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / f".{name}-notes").write_text("other")
    with open_writer(tmp_path / name) as write:
        write(FRAME)
    assert {path.name for path in tmp_path.iterdir()} == {name, f".{name}-notes"}


def test_a_table_that_is_being_written_is_not_disturbed_by_another(tmp_path):
    with open_writer(tmp_path / "out.csv") as first:
        first(FRAME)
        with open_writer(tmp_path / "out.csv") as second:
            second(FRAME.iloc[:1])
        assert TableFile.of(tmp_path / "out.csv").read().shape == (1, 2)
    assert TableFile.of(tmp_path / "out.csv").read().shape == (3, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_model_folder_that_is_a_link_is_refused_before_the_fit(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TableError, match="is a symbolic link, which is not followed"):
        check_model_folder(tmp_path / "link")
