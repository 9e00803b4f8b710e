"""Forked children of tests."""

import os
import signal
import traceback

import pytest


def in_child(check, seconds=30):
    """Fork, and return 0 if the child passes a check within some seconds."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)  # kills the child if it hangs
        try:
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
