"""Setup of every test: one thread, a fixed seed, an empty param store."""

import os
import stat
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # here and in the processes that tests start

import pyro
import pytest
import torch

TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Run all tests of a file on one worker, so that its fixtures are set up once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).as_posix()))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads do not speed up such small networks
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def full_device(tmp_path_factory):
    """Create a device without space left, as a test with a bug could damage /dev/full."""
    path = tmp_path_factory.mktemp("dev") / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        path.open("wb").close()
    except OSError:
        pytest.skip("Only root can make a device.")
    return path


@pytest.fixture(autouse=True)
def _fresh_state():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
