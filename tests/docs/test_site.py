"""The site builds without a warning and without a network, and shows nothing from elsewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import DOCS, ROOT

OFFLINE = """
import socket

def refuse(*_):
    raise OSError("the build reached for the network")

socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli()
"""
RUNBOOKS = DOCS / "runbooks"


@pytest.fixture(scope="module")
def site() -> Path:
    words = [sys.executable, "-c", OFFLINE, "build", "--strict", "--clean"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ROOT / "build" / "site"


class Sources(HTMLParser):
    """Everything that a browser loads for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in {"canonical", "next", "prev"}:
            return
        names = ["src", "srcset", "data", "href"] if tag in {"link", "use"} else ["src", "srcset"]
        self.found |= {str(given[name]) for name in names if given.get(name)}


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        sources = Sources()
        sources.feed(page.read_text())
        assert sources.found
        assert [each for each in sources.found if re.match(r"(https?:)?//", each)] == [], page
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text()) == []


def test_every_page_is_there(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html")
        name = name.with_name("index.html") if name.stem == "README" else name
        assert (site / name).exists()
    assert "values.yaml" in (site / "chart.html").read_text()


def test_links_between_repository_and_site_hold(site: Path) -> None:
    assert "](../charts/rds-csi/README.md)" in (DOCS / "quick-start.md").read_text()
    assert 'href="chart.html"' in (site / "quick-start.html").read_text()


def test_the_picture_is_shown(site: Path) -> None:
    assert 'src="architecture.svg"' in (site / "architecture.html").read_text()
    assert (site / "architecture.svg").read_text().startswith("<svg")


def test_every_alert_is_listed() -> None:
    rules = yaml.safe_load((ROOT / "charts/rds-csi/files/rules.yaml").read_text())
    alerts = {
        rule["alert"]: rule["labels"]["severity"]
        for group in rules["groups"]
        for rule in group["rules"]
    }
    listed = re.findall(
        r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|$", (RUNBOOKS / "README.md").read_text(), re.MULTILINE
    )
    assert listed == sorted(alerts.items())
