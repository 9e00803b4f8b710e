"""Folders that someone has prepared: links, sizes that lie, and values that no fit has."""

import math
import os
import random
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stored_folders import (
    assert_refused,
    edit,
    edit_tensors,
    header_of,
    names_in,
    tensors_file,
    write_header,
    write_signed,
)
from support import assert_equal

from pyrobbb import BayesianNetwork, Posterior, fit, mlp
from pyrobbb.posterior import pruning

needs_links = pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")


def link_folder(folder, outside):
    folder.rename(outside)
    folder.symlink_to(outside, target_is_directory=True)


def link_file(folder, name, outside):
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)


LINKS = {
    "folder": (link_folder, "is a symbolic link, which is not followed"),
    "header": (
        lambda f, o: link_file(f, "posterior.json", o),
        "its 'posterior.json' is a symbolic link, which is not followed",
    ),
    "tensors": (
        lambda f, o: link_file(f, tensors_file(f).name, o),
        r"its 'posterior-\w+.safetensors' is a symbolic link, which is not followed",
    ),
}


@needs_links
@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("is_dangling", [False, True])
def test_links_are_not_followed(posterior, folder, tmp_path, name, is_dangling):
    link, message = LINKS[name]
    outside = tmp_path / "outside"
    link(folder, outside)
    if is_dangling:
        outside.rename(tmp_path / "elsewhere")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert_refused(folder, message)
    with pytest.raises(OSError, match=rf"`path` '.*model' cannot be written: .*{message[:20]}"):
        posterior.save(folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@needs_links
def test_a_folder_below_a_link_is_used(posterior, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    posterior.save(tmp_path / "link" / "model")
    assert_equal(Posterior.load(tmp_path / "disk" / "model"), posterior)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_a_pipe_is_not_read(folder):
    file = tensors_file(folder)
    file.unlink()
    os.mkfifo(file)
    assert_refused(folder, "is not a file")
    (folder / "posterior.json").unlink()
    os.mkfifo(folder / "posterior.json")
    assert_refused(folder, "its 'posterior.json' is not a file")


def promise(folder, n_bytes):
    header = header_of(folder)
    header["tensors"]["bytes"] = n_bytes
    write_header(folder, header, is_signed=False)


def sparse(file, n_bytes, start=b""):
    with open(file, "wb") as stream:
        stream.write(start)
        stream.truncate(n_bytes)


def layout(offset):
    text = b'{"x":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (offset // 4, offset)
    return struct.pack("<Q", len(text)) + text


SIZES = {
    "promised size": (
        lambda f: promise(f, 10**15),
        "is truncated: it has .* of 1000000000000000 bytes",
    ),
    "header of 10 GB": (
        lambda f: sparse(f / "posterior.json", 10**10),
        "its posterior.json has 10000000000 bytes, at most",
    ),
    "tensors of 10 GB": (lambda f: sparse(tensors_file(f), 10**10), "has been changed"),
    "zeros of 10 GB": (
        lambda f: (sparse(tensors_file(f), 10**10), promise(f, 10**10)),
        r"is not a safetensors file \(a header of 0 bytes in 10000000000\)",
    ),
    "tensors that promise more": (
        lambda f: write_signed(f, layout(10**15)),
        r"is not a safetensors file \(its tensors do not fill it\)",
    ),
    "header longer than the file": (
        lambda f: write_signed(f, struct.pack("<Q", 10**15) + b"{}"),
        r"is not a safetensors file \(a header of 1000000000000000 bytes in 10\)",
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_checked_before_anything_is_read(folder, name):
    change, message = SIZES[name]
    change(folder)
    assert_refused(folder, message)


def changed(name, value):
    def change(folder):
        tensors = load_file(tensors_file(folder))
        tensor = tensors[name].clone()
        tensor.view(-1)[0] = value
        edit_tensors(folder, **{name: tensor})

    return change


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name",
    ["chain-0.guide.loc", "chain-0.guide.rho", "chain-0.net.0.bias", "chain-0.example"]
    + [f"chain-0.history.{name}" for name in ("nelbo", "nll", "kl")],
)
def test_tensors_that_are_not_finite_are_refused(folder, name, value):
    changed(name, value)(folder)
    short = name.removeprefix("chain-0.")
    if (short, value) == ("guide.rho", -math.inf):
        assert Posterior.load(folder).guide.has_points  # a weight that has been pruned
    else:
        assert_refused(folder, f"'{short}' holds 1 values that are NaN or infinite")


def test_a_pruned_posterior_and_infinite_buffers_are_read(posterior, tmp_path):
    pruning.prune(posterior, 0.5).save(tmp_path / "pruned")
    assert Posterior.load(tmp_path / "pruned").guide.has_points

    def network():
        net = mlp(3, [6], 1, seed=0)
        net.register_buffer("mask", torch.tensor([-math.inf, 0.0]))
        return BayesianNetwork(net)

    fitted = fit(network(), np.zeros((4, 3)), np.zeros((4, 1)), epochs=1, progress=False)
    fitted.save(tmp_path / "masked")
    read = Posterior.load(tmp_path / "masked", network())
    assert torch.equal(read.network.net.mask, network().net.mask)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "many"),
        ("epochs", 0),
        ("batch_size", 1.5),
        ("n_data", -1),
        ("seed", True),
        ("lr", "0.01"),
        ("engine", 3),
        ("is_weighted", "yes"),
    ],
)
def test_settings_of_another_type_are_refused(folder, name, value):
    (entry,) = header_of(folder)["settings"]
    edit(folder, settings=[{**entry, name: value}])
    assert_refused(folder, f"'{name}' in its 'settings' is invalid: {value!r}")


def test_header_and_tensors_have_one_hash(folder):
    header = header_of(folder)
    for change in ({"guide": "auto_normal"}, {"extra": {"a": 1}}, {"settings": [{"lr": 1.0}]}):
        write_header(folder, {**header, **change}, is_signed=False)
        assert_refused(folder, "or its posterior.json has been changed")
    write_header(folder, dict(reversed(header.items())), is_signed=False)  # the same content
    Posterior.load(folder)


def test_a_thousand_changed_bytes_and_fields_are_refused_or_change_nothing(posterior, folder):
    files = [folder / "posterior.json", tensors_file(folder)]
    contents = [file.read_bytes() for file in files]
    draw = random.Random(0)
    refused = []
    for i in range(1000):
        file, content = files[i % 2], bytearray(contents[i % 2])
        place = draw.randrange(len(content))
        kind = draw.choice(["flip", "set", "delete", "insert"])
        if kind == "flip":
            content[place] ^= 1 << draw.randrange(8)
        elif kind == "set":
            content[place] = draw.choice([0, 255, *b'0123456789"{}[],:\\ \n'])
        elif kind == "delete":
            del content[place]
        else:
            content[place:place] = bytes([draw.choice(b'0129.e-"{}[],: ')])
        file.write_bytes(content)
        try:
            read = Posterior.load(folder)
        except ValueError as error:
            refused.append(str(error))

        else:
            assert_equal(read, posterior)
        file.write_bytes(contents[i % 2])
    assert len(refused) > 900
    assert all(message.startswith(f"`path` {str(folder)!r} ") for message in refused)
    assert names_in(folder) == sorted(file.name for file in files)
