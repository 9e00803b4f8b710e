"""Notes on errors: the section of docs/errors.md that has the refusal."""

import re
import traceback
from pathlib import Path

import numpy as np
import pytest
from support import X, Y, shared_fit, small_network

from pyrobbb import BayesianNetwork, BBBClassifier, BBBRegressor, fit
from pyrobbb._core.error_pages import SECTION_OF, SECTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")

CALLS = {
    "Data": lambda: fit(small_network(), X * np.nan, Y),
    "Networks": lambda: fit(None, X, Y),
    "Priors and likelihoods": lambda: BayesianNetwork(small_network().net, prior="flat"),
    "Guides and objectives": lambda: fit(small_network(), X, Y, kl_weight=-1),
    "Fits and checkpoints": lambda: fit(small_network(), X, Y, epochs=0),
    "Estimators": lambda: BBBRegressor(calibration=1).fit(X, Y[:, 0]),
}


@pytest.mark.parametrize("section", CALLS)
def test_an_error_names_its_section_in_a_note_and_not_in_its_message(section):
    with pytest.raises((TypeError, ValueError), match=r"^`\w+` ") as caught:
        CALLS[section]()
    assert caught.value.__notes__ == [f'See "{section}" in docs/errors.md.']
    assert "docs/errors.md" not in str(caught.value)
    assert traceback.format_exception(caught.value)[-1].startswith("See ")


def test_every_section_is_a_heading_whose_table_has_its_arguments():
    tables = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.S | re.M))
    for section, names in SECTIONS.items():
        begun = set(re.findall(r"\| `` `(\w+)", tables[section]))
        assert begun & set(names.split()), section
    assert len(SECTION_OF) == sum(len(names.split()) for names in SECTIONS.values())


def test_there_is_one_note_also_through_several_calls():
    with pytest.raises(ValueError, match="`X`") as caught:
        BBBClassifier().fit(np.ma.masked_less(X, 0), Y[:, 0] > 0)
    assert len(caught.value.__notes__) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("`x` is out of memory"),
        ValueError("a message of a callback"),
        ValueError("`x` of a user's own code"),
        KeyError("x"),
    ],
)
def test_errors_that_are_not_ours_are_left_alone(error):
    def callback(end):
        raise error

    with pytest.raises(type(error)) as caught:  # any message
        fit(small_network(), X, Y, epochs=1, callbacks=callback, progress=False)
    assert caught.value is error
    assert not hasattr(error, "__notes__")


def test_an_argument_without_a_section_has_no_note():
    with pytest.raises(ValueError, match="`n_draws` must be at least 1") as caught:
        shared_fit().predict(X, 0)
    assert not hasattr(caught.value, "__notes__")
