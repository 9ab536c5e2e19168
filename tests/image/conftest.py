"""The images of the Containerfile, built once a session (``nox -s image``; needs root)."""

from pathlib import Path

import pytest

from tests.image.recipe import Builder, Image

ROOT = Path(__file__).parents[2]
BUILT = pytest.StashKey[dict[str, Image]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--built", action="store_true", help="try the images that were built last")


@pytest.fixture(scope="session")
def images(pytestconfig: pytest.Config) -> dict[str, Image]:
    folder = ROOT / "build" / "image"
    folder.mkdir(parents=True, exist_ok=True)
    built = pytestconfig.getoption("--built")
    images = Builder(ROOT, folder, built=built).build((ROOT / "Containerfile").read_text())
    pytestconfig.stash[BUILT] = images
    return images


@pytest.fixture
def controller(images: dict[str, Image]) -> Image:
    return images["controller"]


@pytest.fixture
def node(images: dict[str, Image]) -> Image:
    return images["node"]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for name, image in config.stash.get(BUILT, {}).items():
        if name != "build":
            line = f"image {name}: {image.size() / 1e6:.0f} MB uncompressed"
            terminalreporter.write_line(line)
