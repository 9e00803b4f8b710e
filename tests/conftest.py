"""What every test starts from: one thread, a fixed seed, an empty param store."""

import pyro
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are too small for more to pay
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(autouse=True)
def _fresh_state():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
