from __future__ import annotations

from collections.abc import Iterator

import pytest

from testing.object_store import ObjectStore


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """One S3 for the whole run."""
    with ObjectStore(tmp_path_factory.mktemp("object_store")) as store:
        yield store
