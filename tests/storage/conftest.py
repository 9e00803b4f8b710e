"""A posterior and its folder, shared by the tests of storage."""

import pytest
from stored_folders import fitted


@pytest.fixture(scope="session")
def posterior():
    return fitted()


@pytest.fixture
def folder(posterior, tmp_path):
    posterior.save(tmp_path / "model")
    return tmp_path / "model"
