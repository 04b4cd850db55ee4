"""The page in a browser, beside a running marketplace: each view shows what is true and acts on it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.page import shop as shops
from tests.page.conftest import Open
from tests.page.shop import Shop
from tests.page.window import NARROW, WIDE

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shops.running(tmp_path_factory.mktemp("shop")) as running:
        yield running


VIEWS = {
    "now": "#/now",
    "models": "#/models",
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_view_is_legible_and_accessible(
    shop: Shop, open_page: Open, view: str, width: int, scheme: str
) -> None:
    window = open_page(f"{shop.url}/{VIEWS[view]}", width=width, scheme=scheme)
    window.page.locator("[data-view] section").first.wait_for()
    assert window.overflow() == 0
    assert window.violations() == []
    window.check_structure(view)


def test_the_documentation_of_the_api_loads_from_this_server_only(
    shop: Shop, open_page: Open
) -> None:
    page = open_page(f"{shop.url}/docs").page
    operations = page.locator(".opblock")
    operations.first.wait_for()
    assert operations.count() > 20
