"""Errors that end a command: one line for mistakes of the user, a traceback for bugs."""

from __future__ import annotations

import dis

try:  # Newer versions of typer include click; older ones depend on it.
    from typer._click.exceptions import UsageError
except ImportError:
    from click import UsageError  # type: ignore[assignment, no-redef, unused-ignore]

from ..columns.errors import UserError

__all__ = ["UsageError", "message_for_user"]

DOCUMENTED_ERRORS = (ValueError, TypeError, NotImplementedError, ArithmeticError, ImportError)
"""Raised by the public API for arguments that come from the user; ArithmeticError is the base of
`NonFiniteLossError`."""


def message_for_user(error: Exception) -> str | None:
    """Return the message of an error that is not a bug of pyrobbb, and None for a bug.

    Errors that are not bugs are `UserError`, errors of the operating system, and the documented
    errors that pyrobbb raises by a ``raise`` statement. If a built-in function or another library
    raises an error of these types, it is a bug, because pyrobbb should have validated the argument.
    """
    if isinstance(error, MemoryError):
        return f"not enough memory. {error} Use fewer rows or columns."
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}." if error.filename else reason
    is_documented = isinstance(error, DOCUMENTED_ERRORS) and _is_raised_here(error)
    return str(error) if isinstance(error, UserError) or is_documented else None


def _is_raised_here(error: Exception) -> bool:
    """Return whether a ``raise`` statement of pyrobbb has raised an error.

    A built-in function has no frame in the traceback, so the module of the last frame does not
    suffice: the instruction that was running must be that of a ``raise`` statement.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not last.tb_frame.f_globals.get("__name__", "").startswith("pyrobbb."):
        return False
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
