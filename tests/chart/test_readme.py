"""The chart's README is what values.yaml says."""

import pytest
import yaml

from tests.chart.conftest import BASE, CHART, Chart
from tests.chart.readme import INTRODUCTION, readme


def test_readme(write: bool) -> None:
    text = readme((CHART / "values.yaml").read_text())
    if write:
        (CHART / "README.md").write_text(text)
    assert (CHART / "README.md").read_text() == text, "nox -s chart -- --write"


def test_a_value_without_a_comment_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a\.c has no comment"):
        readme("a:\n  # -- Said.\n  b: 1\n  c: 2\n")


def test_rows() -> None:
    text = readme("a:\n  # -- One,\n  # and more.\n  b: {d: x}\n  # -- A list.\n  c:\n    - e: 1\n")
    assert text.endswith(
        '| `a.b` | `{"d": "x"}` | One, and more. |\n| `a.c` | `[{"e": 1}]` | A list. |\n'
    )


def test_the_example_installs(chart: Chart) -> None:
    [example] = INTRODUCTION.split("```yaml\n")[1:]
    values = yaml.safe_load(example.split("```")[0])
    values["rds"]["hostKeys"] = BASE["rds"]["hostKeys"]
    assert "clusterId is missing" in chart.refusal(values)
    assert chart.objects({**values, "clusterId": "prod"})
