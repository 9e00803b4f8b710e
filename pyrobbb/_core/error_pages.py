"""A note on errors: the section of the documentation that lists the refusal and its remedy."""

from __future__ import annotations

import re

PAGE = "docs/errors.md"
SECTIONS = {
    "Data": "x y n_data sample_weight rows validation",
    "Networks": "network net output trunk cache_features activation",
    "Priors and likelihoods": "prior likelihood",
    "Guides and objectives": "guide rank init_scale objective n_particles estimator kl_weight",
    "Fits and checkpoints": "epochs batch_size lr schedule clip_norm engine kl_warmup start init "
    "restarts patience callbacks seed checkpoint every device dtype autocast",
    "Estimators": "X columns calibration early_stopping validation_fraction random_state",
    "Loading": "path folder",
}
"""The arguments that begin the messages of each section of the page."""
SECTION_OF = {name: section for section, names in SECTIONS.items() for name in names.split()}


def add_page(error: BaseException) -> None:
    """Add a note with the section on the argument that a message begins with, once.

    Errors of other libraries, and messages that begin otherwise, are left as they are.
    """
    argument = re.match(r"`(\w+)", str(error))
    section = SECTION_OF.get(argument[1]) if argument else None
    is_refusal = isinstance(error, TypeError | ValueError) and _is_ours(error)
    if section and is_refusal and not any(PAGE in note for note in _notes(error)):
        error.add_note(f'See "{section}" in {PAGE}.')


def _is_ours(error: BaseException) -> bool:
    """Return whether an error was raised by code of this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] == __name__.partition(".")[0]


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])
