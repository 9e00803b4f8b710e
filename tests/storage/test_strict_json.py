"""Strict JSON: values are read back as they were written, or refused."""

import json
import math

import numpy as np
import pytest
from stored_folders import assert_refused, by_hand, edit, fitted, header_of, write_header

from pyrobbb import BayesianNetwork, Posterior, mlp, priors
from pyrobbb.storage.strict_json import check_fields


def test_numpy_numbers_are_saved(tmp_path):
    prior = priors.Normal(np.float32(0.3), np.int64(1))
    fitted(prior=prior, kl_warmup=np.float32(0.25), lr=np.float32(0.01)).save(tmp_path / "model")
    assert Posterior.load(tmp_path / "model").settings["kl_warmup"] == 0.25
    assert Posterior.load(tmp_path / "model").network.prior == prior


def test_settings_are_saved_as_json_values_and_callables_by_name(tmp_path):
    network = BayesianNetwork(mlp(3, [6], 1))
    notes = {"betas": (0.9, np.float64(0.99)), "is_quick": np.bool_(True), "schedule": math.cos}
    by_hand(network, n_data=40, **notes).save(tmp_path / "model")
    expected = {"betas": [0.9, 0.99], "is_quick": True, "schedule": "cos", "n_data": 40}
    assert Posterior.load(tmp_path / "model").settings == expected


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (math.nan, ValueError, r"`settings\['odd'\]` must be finite .*JSON, got nan"),
        ([1, np.inf], ValueError, r"`settings\['odd'\]\[1\]` must be finite .*, got inf"),
        (
            np.zeros(2),
            TypeError,
            r"`settings\['odd'\]` must be a number, .* stored as JSON, got ndarray",
        ),
        ({1: 2}, TypeError, r"`settings\['odd'\]` must have strings as keys, got 1"),
    ],
)
def test_value_without_json_type_is_named_and_the_folder_is_unchanged(
    folder, value, error, message
):
    before = header_of(folder)
    with pytest.raises(error, match=message):
        by_hand(BayesianNetwork(mlp(3, [6], 1)), odd=value).save(folder)
    assert header_of(folder) == before


INVALID = {
    "truncated": (b'{"form', "is not valid JSON"),
    "deep": (b"[" * 10**5, "is not valid JSON"),
    "bytes": (b"\xff", "is not valid JSON"),
    "list": (b"[]", "its posterior.json must be an object, got"),
    "huge": (b'{"format": 1e999}', "it contains the number 1e999"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_json_is_refused(folder, name):
    content, message = INVALID[name]
    (folder / "posterior.json").write_bytes(content)
    assert_refused(folder, message)


def test_nan_is_refused(folder):
    header = {**header_of(folder), "extra": {"a": math.nan}}
    (folder / "posterior.json").write_text(json.dumps(header))
    assert_refused(folder, "it contains the number NaN")


def test_missing_and_surplus_fields_are_refused(folder):
    header = header_of(folder)
    guide = header.pop("guide")
    write_header(folder, header)
    assert_refused(folder, "its posterior.json has no field 'guide'")
    edit(folder, guide=guide, code="1")
    assert_refused(folder, "has the unknown field 'code'")


def test_check_fields_compares_exact_types():
    assert check_fields("'a'", {"n": 1}, {"n": int}) == {"n": 1}
    with pytest.raises(ValueError, match="'n' in its 'a' must be a whole number, got True"):
        check_fields("'a'", {"n": True}, {"n": int})
    message = "'n' in its 'a' must be a whole number or null, got 1.0"
    with pytest.raises(ValueError, match=message):
        check_fields("'a'", {"n": 1.0}, {"n": (int, type(None))})
