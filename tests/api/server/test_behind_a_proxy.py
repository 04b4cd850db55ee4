"""The API below a prefix: behind a real nginx, and as each kind of proxy sends the path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from core.settings import Settings
from testing.redis import RedisServer
from tests.api.server.limited_server import limits, start
from tests.api.server.nginx import Nginx, is_installed
from tests.api.world import Client, publish, serving


@pytest.fixture
def proxy(
    redis_server: RedisServer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """An HTTP client of an nginx that serves the API below /reco, and removes /reco."""
    if not is_installed():
        pytest.skip("needs nginx on PATH")
    settings = limits(redis_server, tmp_path_factory, api_root_path="/reco")
    publish(settings)
    server = start(settings)
    location = f"location /reco/ {{ proxy_pass http://127.0.0.1:{server.port}/; }}"
    with (
        Nginx(tmp_path / "nginx", location) as nginx,
        httpx.Client(base_url=f"http://{nginx.address}", timeout=60) as client,
    ):
        yield client
    server.child.stop()


def files_of(page: httpx.Response) -> list[str]:
    """URLs of the script, the style, the icon and the document of the page /docs."""
    links = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)["']""", page.text)
    return [urljoin(str(page.url), link) for link in links]


def test_the_docs_page_and_its_document_work_behind_nginx_that_removes_the_prefix(
    proxy: httpx.Client,
) -> None:
    page = proxy.get("/reco/docs")
    urls = files_of(page)
    assert [Path(urlsplit(url).path).suffix for url in urls] == [".css", ".png", ".js", ".json"]
    for url in urls:
        assert urlsplit(url).netloc == urlsplit(str(page.url)).netloc, "no other host"
        assert proxy.get(url).status_code == 200, url
    assert "SwaggerUIBundle" in proxy.get(urls[2]).text
    (server,) = proxy.get(urls[3]).json()["servers"]
    assert proxy.get(f"{server['url']}/api/popular").json()["recommendations"]


def test_an_id_with_a_slash_passes_a_proxy_that_decodes_paths_in_the_query_string(
    proxy: httpx.Client,
) -> None:
    assert proxy.get("/reco/api/users/a%2Fb").status_code == 404, "nginx decodes it"
    assert proxy.get("/reco/api/users/-?user_id=a%2Fb").json()["user_id"] == "a/b"
    for user_id in ("a/b", "..", "a//b/", "ä b+c&d=e"):
        answer = proxy.get(
            "/reco/api/recommendations/startups/for-developer/-",
            params={"user_id": user_id, "limit": 3},
        )
        assert answer.json()["user_id"] == user_id
        assert len(answer.json()["recommendations"]) == 3


def test_a_proxy_may_remove_the_prefix_or_pass_it_on(settings: Settings, redis: object) -> None:
    publish(settings)
    with serving(settings, api_root_path="/reco", api_read_keys="reader") as client:
        key = {"x-api-key": "reader"}
        for path in ("/api/popular", "/reco/api/popular"):
            assert client.get(path, headers=key).status_code == 200
            assert client.get(path).status_code == 401
            assert client.request("POST", path.replace("popular", "events")).status_code == 401
        assert client.get("/reco/health/live").status_code == 200
        for path in ("/reco/reco/api/popular", "/%72eco/api/popular", "/recoapi/popular"):
            assert client.get(path).status_code == 404, path


def test_without_a_prefix_the_page_works_at_the_root(api: Client) -> None:
    for url in files_of(api.get("/docs")):
        assert api.get(url).status_code == 200, url
    assert api.get("/docs/redoc.standalone.js").status_code == 404
    packed = api.get("/docs/swagger-ui.css")
    plain = api.get("/docs/swagger-ui.css", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert "servers" not in api.get("/openapi.json").json()
