"""What the site needs beside ``docs/``: pages that live elsewhere in the repository.

They are shown where they are, not copied, and links to them (``../charts/rds-csi/README.md``) hold
in the repository and on the site. ``mkdocs.yml`` names this file as a hook.
"""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
ELSEWHERE: Final = {
    "charts/rds-csi/README.md": "chart.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages by their path in the repository, and what the site calls them."""

_LINK: Final = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere (called by mkdocs)."""
    for source, name in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Let links to these pages lead to where the site has them (called by mkdocs)."""
    # As the link was written: from docs/, or from the page's own place in the repository.
    names = {name: source for source, name in ELSEWHERE.items()}
    here = page.file.src_uri
    base = posixpath.dirname(names.get(here, f"docs/{here}"))

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(base, match[1]))
        place = ELSEWHERE.get(target, target.removeprefix("docs/"))
        if place == target:
            return match[0]
        relative = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"]({relative}{match[2] or ''})"

    return _LINK.sub(moved, markdown)
