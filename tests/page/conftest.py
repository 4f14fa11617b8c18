"""A collection with hostile file names, and the page of it."""

from pathlib import Path

import pytest

from tests.page.served import NAMES, serving
from tests.search.collection import make_collection


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page")
    make_collection(path, NAMES)
    return path


@pytest.fixture(scope="module")
def client(made):
    (made / "scratch").mkdir(exist_ok=True)
    with serving(made / "index", made / "run", made / "scratch") as client:
        yield client
    assert not list((made / "scratch").iterdir())
