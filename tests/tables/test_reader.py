"""Reading of tables: cells, line numbers and the errors of damaged files."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrobbb.tables import TableError, TableFile, compressed, delimited, reader

CELLS = [["1", "a"], ["2", "b, c"], ["", 'd "e"']]
FRAME = pd.DataFrame(CELLS, columns=["x", "y"])
TEXT = FRAME.to_csv(index=False)


def read(path, **options):
    return TableFile.of(path, **options).read()


def cells_of(path, **options):
    return read(path, **options).to_numpy().tolist()


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.rstrip("\n").encode(),
        TEXT.replace("\n", "\n\n").encode(),
        gzip.compress(TEXT.encode()),
    ],
    ids=["utf-8", "mark", "utf-16", "crlf", "cr", "no line end", "blank lines", "gzip"],
)
def test_the_cells_do_not_depend_on_encoding_and_line_ends(write, content):
    assert cells_of(write(content)) == CELLS


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolon"), ("\t", "tab"), ("|", "vertical bar")]
)
def test_a_delimiter_other_than_a_comma_is_detected_and_noted(write, delimiter, name):
    table = TableFile.of(write(FRAME.to_csv(index=False, sep=delimiter)))
    assert table.notes == (f"The detected delimiter is the {name}.",)
    assert table.read().to_numpy().tolist() == CELLS


def test_the_detected_delimiter_splits_all_lines_into_equally_many_fields(write):
    path = write("first, in full, of them;second\na;1\nb, c;2\n")
    assert cells_of(path) == [["a", "1"], ["b, c", "2"]]


def test_a_tsv_is_split_at_tabs_even_if_commas_would_give_more_fields(write):
    path = write("a,b,c\ty\n1,2,3\t4\n", "table.tsv")
    assert cells_of(path) == [["1,2,3", "4"]]


def test_parquet_keeps_types_and_counts_rows(tmp_path):
    frame = pd.DataFrame({"x": [1.5, None, 3.0], "y": ["a", "b", None], "z": [True, False, True]})
    frame.to_parquet(tmp_path / "table.parquet")
    read_back = read(tmp_path / "table.parquet")
    assert read_back["x"].dtype == np.float64
    assert read_back["z"].dtype == np.bool_
    assert list(read_back.index) == [1, 2, 3]
    assert read_back.index.name == "row"


def test_parquet_keeps_large_integers_in_a_column_with_missing_cells(tmp_path):
    ids = pd.array([2**60 + 1, None, 3], dtype="Int64")
    pd.DataFrame({"id": ids}).to_parquet(tmp_path / "table.parquet")
    assert read(tmp_path / "table.parquet")["id"].tolist() == [2**60 + 1, None, 3]


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
@pytest.mark.parametrize("n_rows", [1, 3, 7, 100])
def test_the_concatenated_chunks_are_the_whole_table(tmp_path, name, n_rows):
    frame = pd.DataFrame({"x": np.arange(7.0), "y": list("abcdefg")})
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    table = TableFile.of(path)
    chunks = list(table.chunks(n_rows))
    assert max(map(len, chunks)) <= n_rows
    pd.testing.assert_frame_equal(pd.concat(chunks), table.read(), check_index_type=False)


def test_the_index_holds_the_line_in_which_a_row_begins(write):
    table = read(write('x,y\n1,"two\nlines"\n\n2,z\n'))
    assert list(table.index) == [2, 5]
    assert table.index.name == "line"


def test_a_column_without_a_name_gets_one_with_a_note(write):
    table = TableFile.of(write(",x\n0,1\n"))
    assert table.columns == ("column 1", "x")
    assert table.notes == ("Column 1 has no name; it is called 'column 1'.",)


def test_a_header_of_numbers_is_noted(write):
    assert "is the line of column names missing" in TableFile.of(write("1,2\n3,4\n")).notes[0]


LATIN = "x,y\n1,a\n2,caf\u00e9\n".encode("latin-1")
BAD = {
    "empty": (b"", "is empty; it must begin with a line of column names"),
    "blank": (b"\n\n", "is empty"),
    "header only": (b"x,y\n", "has a header but no rows"),
    "long row": (b"x,y\n1,2\n1,2,3\n", "line 3: has 3 fields, but the header has 2"),
    "short row": (b"x,y\n1,2\n\n1\n", "line 4: has 1 field, but the header has 2"),
    "duplicate": (b"x,y, x\n1,2,3\n", "columns 1 and 3 are both called 'x'"),
    "latin-1": (LATIN, "line 3: byte 6 of the line, 0xe9, is not UTF-8.*--encoding latin-1"),
    "nul": (b"x,y\n1,2\n1,\0\n", "line 3: contains a NUL byte"),
    "utf-16 without a mark": (TEXT.encode("utf-16-le"), "line 1: contains a NUL byte.*utf-16-le"),
    "open quote": (b'x,y\n1,2\n1,"2\n3,4\n', "line 3: a quoted field begins .* does not end"),
    "text after quote": (b'x,y\n1,2\n1,"2"3\n', "line 3: .*Correct the quotes"),
    "zip": (b"PK\x03\x04rest", "an Excel workbook; save the table as csv"),
    "damaged gzip": (gzip.compress(TEXT.encode())[:-9], "is truncated or damaged"),
    "no gzip": (b"\x1f\x8bnonsense", "cannot be read"),
    "damaged parquet": (b"PAR1nonsensePAR1", "is damaged"),
    "parquet in gzip": (gzip.compress(b"PAR1"), "is a parquet file compressed by gzip; decompress"),
    "gzip in gzip": (gzip.compress(gzip.compress(b"x")), "is a gzip file compressed by gzip; deco"),
    "zip in gzip": (gzip.compress(b"PK\x03\x04"), "is a zip archive or an Excel workbook compress"),
    "utf-16 without a mark, beyond ascii": (
        "x,y\n1,\u00fc\n".encode("utf-16-le"),
        "line 1: contains a NUL byte.*utf-16-le",
    ),
    "utf-16 without a mark, truncated gzip": (
        gzip.compress("x,y\n1,\u00fc\n".encode("utf-16-be"))[:-9],
        "contains a NUL byte|is truncated or damaged",
    ),
    "wrong checksum": (gzip.compress(b"x,y\n1,2\n")[:-5] + b"01234", "cannot be read: CRC check"),
    "rest after gzip": (gzip.compress(b"x,y\n1,2\n") + b"rest", "cannot be read: Not a gzipped"),
    "long field": (b"x,y\n1," + b"9" * 200_000, "line 2: a field is longer than 131072 characters"),
    "half a character of utf-16": (TEXT.encode("utf-16") + b"x", "is not utf-16"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_damaged_file_raises_an_error_of_one_line(write, content, message):
    path = write(content)
    with pytest.raises(TableError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "klingon"}, "`encoding` must be a text encoding of Python.*got 'klingon'"),
        ({"encoding": "hex"}, "`encoding` must be a text encoding of Python"),
        ({"delimiter": "::"}, "`delimiter` must be a single character.*got '::'"),
    ],
)
def test_an_invalid_option_is_rejected(write, options, message):
    with pytest.raises(TableError, match=message):
        read(write(TEXT), **options)


def test_a_given_encoding_is_used(write):
    assert cells_of(write(LATIN), encoding="latin-1")[1] == ["2", "caf\u00e9"]


def test_a_path_that_is_not_a_regular_file_is_rejected(tmp_path):
    with pytest.raises(TableError, match="does not exist"):
        read(tmp_path / "none.csv")
    with pytest.raises(TableError, match="is a folder; pass a csv"):
        read(tmp_path)
    with pytest.raises(TableError, match="is not a regular file"):
        read("/dev/null")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-16-le"])
def test_a_gzip_file_truncated_anywhere_is_refused(write, encoding):
    content = gzip.compress("x,y\n1,\u00fc\n2,b\n".encode(encoding) * 20)
    for n_bytes in range(1, len(content)):
        path = write(content[:n_bytes], "table.csv.gz")
        with pytest.raises(TableError, match=r"truncated|is not|is empty|NUL"):
            read(path)


def test_a_parquet_file_damaged_or_truncated_anywhere_is_read_or_refused(tmp_path):
    path = tmp_path / "table.parquet"
    frame = pd.DataFrame({"x": np.arange(9.0), "y": list("abcdefghi")})
    frame.to_parquet(path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        path.write_bytes(content[: rng.integers(4, len(content))])
        with pytest.raises(TableError, match=r"is damaged|cannot be read"):
            read(path)
        damaged = bytearray(content)
        for i in rng.integers(4, len(content), size=4):
            damaged[i] = rng.integers(256)
        path.write_bytes(damaged)
        problem = ""
        try:
            read(path)
        except TableError as error:
            problem = str(error)
        assert "\n" not in problem


GZIP_BOMBS = {
    "rows": b"x,y\n" + b"1,2\n" * 500_000,
    "blank lines": b"x,y\n" + b"\n" * 2_000_000,
    "one line": b"1," * 1_000_000,
    "one cell": b"x,y\n1," + b"9" * 2_000_000,
    "quoted": b'x,y\n1,"' + b"9" * 2_000_000,
    "NUL": b"\0" * 2_000_000,
}


@pytest.mark.parametrize("content", GZIP_BOMBS.values(), ids=GZIP_BOMBS)
def test_a_gzip_file_that_expands_too_far_is_refused_before_its_rows_are_read(
    write, monkeypatch, content
):
    monkeypatch.setattr(compressed, "MIN_BYTES", 1 << 20)
    path = write(gzip.compress(content))
    with pytest.raises(TableError, match=r"expands from .* more than 100 times .*--max-expansion"):
        TableFile.of(path)


def test_a_gzip_file_that_expands_too_far_after_its_beginning_is_refused(write, monkeypatch):
    rng = np.random.default_rng(0)
    start = "".join(f"{x},{y}\n" for x, y in rng.normal(size=(2000, 2)))
    path = write(gzip.compress(("x,y\n" + start).encode() + b"1,2\n" * 200_000))
    monkeypatch.setattr(compressed, "MIN_BYTES", 1 << 11)
    table = TableFile.of(path, max_expansion=10)
    with pytest.raises(TableError, match="more than 10 times"):
        table.read()


def test_the_expansion_may_be_raised_and_small_files_may_expand_at_will(write, monkeypatch):
    path = write(gzip.compress(b"x,y\n" + b"1,2\n" * 30_000))
    assert path.stat().st_size * 100 < 120_000
    assert len(read(path)) == 30_000
    monkeypatch.setattr(compressed, "MIN_BYTES", 1 << 10)
    with pytest.raises(TableError, match="more than 100 times"):
        read(path)
    assert len(read(path, max_expansion=2000)) == 30_000
    with pytest.raises(TableError, match="`max_expansion` must be at least 1, got 0"):
        read(path, max_expansion=0)


@pytest.mark.parametrize(
    "columns",
    [
        {"x": np.zeros(3_000_000), "y": np.zeros(3_000_000)},
        {"x": np.zeros(80_000_000, dtype=bool)},
        {"x": ["a" * 1_000_000] * 80},
    ],
    ids=["zeros", "many rows", "long strings"],
)
def test_a_parquet_file_that_expands_too_far_is_refused_by_its_metadata(
    tmp_path, monkeypatch, columns
):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "table.parquet"
    parquet.write_table(
        arrow.table(columns), path, compression="zstd", use_dictionary="y" not in columns
    )
    if isinstance(columns["x"], list):
        monkeypatch.setattr(reader, "MAX_CHUNK_BYTES", 1 << 20)
        with pytest.raises(TableError, match=r"80 rows of 80,.* bytes; at most 1,048,576"):
            read(path)
    else:
        monkeypatch.setattr(compressed, "MIN_BYTES", 1 << 24)
        with pytest.raises(TableError, match="more than 100 times its size"):
            TableFile.of(path)


def test_a_line_without_end_is_refused(write, monkeypatch):
    monkeypatch.setattr(delimited, "MAX_LINE", 1000)
    with pytest.raises(TableError, match="line 2: is longer than 1,000 characters"):
        read(write("x,y\n" + "1," * 1000))


@given(content=st.binary(max_size=200))
@settings(max_examples=200, deadline=2000)
def test_any_bytes_are_read_or_raise_a_table_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "table.csv"
    path.write_bytes(content)
    try:
        n_rows = len(read(path))
    except TableError:
        return
    assert n_rows > 0


@given(
    cells=st.lists(st.tuples(st.text(max_size=5), st.text(min_size=1, max_size=5)), min_size=1),
)
@settings(max_examples=100, deadline=2000)
def test_a_table_written_by_pandas_is_read_unchanged(tmp_path_factory, cells):
    cells = [[a, b] for a, b in cells if "\0" not in a + b and (a + b).isprintable()]
    frame = pd.DataFrame(cells or [["a", "b"]], columns=["x", "y"])
    path = tmp_path_factory.mktemp("fuzz") / "table.csv"
    frame.to_csv(path, index=False, quoting=1)
    assert cells_of(path, delimiter=",") == frame.to_numpy().tolist()
