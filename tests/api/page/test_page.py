"""The page at `/`: for browsers only, without another host, cached by its version."""

from __future__ import annotations

import re

import pytest

from api.page.routes import prefers_html
from core.settings import Settings
from core.version import VERSION
from models.registry import Registry
from tests.api import world

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (CHROME, True),
        ("text/html", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0", False),
        ("text/html;q=many", False),
    ],
)
def test_the_page_is_for_those_who_prefer_html(accept: str, html: bool) -> None:
    assert prefers_html(accept) is html


def test_a_browser_gets_the_page_and_a_program_gets_addresses(api: world.Client) -> None:
    page = api.get("/", headers={"accept": CHROME})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    answer = api.get("/")
    assert answer.json()["version"] == VERSION
    assert answer.headers["vary"] == page.headers["vary"] == "accept"
    for name, address in answer.json()["links"].items():
        assert api.get(address).status_code == 200, name


def test_the_page_runs_no_inline_script_and_asks_no_other_host(api: world.Client) -> None:
    page = api.get("/", headers={"accept": CHROME})
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["frame-src"] == "'self'"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son[a-z]+=|https?://", page.text)


def test_every_file_of_the_page_is_served_compressed_and_may_be_cached(api: world.Client) -> None:
    page = api.get("/", headers={"accept": CHROME}).text
    [address] = re.findall(r'src="(page/[0-9a-f]+)/app\.js"', page)
    names = {"app.js", "charts.js"}
    queue = [*names]
    while queue:
        answer = api.get(f"/{address}/{queue.pop()}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["content-encoding"] == "gzip"
        assert "immutable" in answer.headers["cache-control"]
        imported = set(re.findall(r'"\./([a-z0-9.-]+\.js)"', answer.text)) - names
        names |= imported
        queue += imported
    assert {"now.js", "models.js", "user.js", "item.js", "plotly.min.js"} < names
    plain = api.get(f"/{address}/page.css", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert ":root" in plain.text
    assert api.get(f"/{address}/page.py").status_code == 404


def test_a_page_older_than_the_process_gets_the_files_of_now(api: world.Client) -> None:
    answer = api.get("/page/000000000000/app.js")
    assert answer.status_code == 307
    file = api.get("/page/000000000000/" + answer.headers["location"].removeprefix("../") + "x")
    assert file.status_code == 404


def test_a_page_behind_a_prefix_names_everything_below_it(settings: Settings) -> None:
    with world.serving(settings, api_root_path="/reco") as client:
        for path in ("/reco", "/reco/"):  # a proxy that passes the prefix on
            assert '<base href="/reco/">' in client.get(path, headers={"accept": CHROME}).text
        assert client.get("/reco").json()["links"]["documentation"] == "/reco/docs"


def test_the_page_itself_needs_no_key(settings: Settings) -> None:
    with world.serving(settings, api_read_keys="readers-key") as client:
        assert client.get("/", headers={"accept": CHROME}).status_code == 200
        assert client.get("/api/models").status_code == 401


def test_a_report_has_an_origin_of_its_own(api: world.Client) -> None:
    page = api.get("/", headers={"accept": CHROME}).text
    [address] = re.findall(r'src="(page/[0-9a-f]+)/app\.js"', page)
    frame = api.get(f"/{address}/report-frame.html")
    policy = frame.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy
    assert "report-frame.js" in frame.text


def test_the_report_of_a_version_is_a_page_that_can_ask_nothing(
    settings: Settings, api: world.Client
) -> None:
    version = Registry(settings.models_path).current()
    assert version is not None
    assert api.get(f"/api/models/{version}/report").json()["error"] == "no_report"
    report = settings.models_path / version / "evaluation" / "report.html"
    report.parent.mkdir()
    report.write_text("<!doctype html><title>Evaluation</title>")
    answer = api.get(f"/api/models/{version}/report")
    assert answer.status_code == 200
    assert "Evaluation" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "connect-src" not in policy
    for other in ("2026-01-01T00-00-00Z", "..%2F..", "current"):
        assert api.get(f"/api/models/{other}/report").status_code == 404
