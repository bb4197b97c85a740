"""The figures that the documentation shows are those that `make bench` has recorded."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    """bench/report.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("report", ROOT / "bench/report.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["report"] = module  # where its dataclass looks for its annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    """The last whole run."""
    found: dict[str, Any] = json.loads((RESULTS / "figures.json").read_text())
    return found


def test_the_tables_are_made_from_the_record(report: ModuleType, record: dict[str, Any]) -> None:
    """bench/results/README.md is what report.py makes of figures.json, and nothing else."""
    assert (RESULTS / "README.md").read_text() == report.markdown(record)


def test_the_readme_shows_the_targets_as_they_were_found(report: ModuleType, record: dict[str, Any]) -> None:
    """Each row, those that were missed among them, under the date of the run; with the plot."""
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(report.target_rows(record["scenarios"])) in readme
    assert record["machine"]["date"][:10] in readme
    assert "make bench" in readme
    assert "bench/results/plot.png" in readme
    assert all((RESULTS / f"plot.{form}").stat().st_size > 1000 for form in ("png", "svg"))


def test_every_target_was_measured(report: ModuleType, record: dict[str, Any]) -> None:
    """In interleaved rounds: as many of each peer, and an odd number, so that a median is one of them."""
    for target in report.TARGETS:
        assert report.reached(target, record["scenarios"]) is not None, target
    for name, rows in record["scenarios"].items():
        assert len({len(row) for row in rows.values()}) == 1, name
        assert all(len(row) % 2 for row in rows.values()), name


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [(1.0, 2.0, "| 0.50 |"), (3.0, 2.0, "| 1.50 (missed) |"), (2.2, 2.0, "| 1.10 |")],
)
def test_a_ratio_is_of_medians(report: ModuleType, ours: float, theirs: float, said: str) -> None:
    """And says where its bound is missed."""
    rows = {
        "runtime1": [{"first_next": value} for value in (ours, 100.0, 0.1)],
        "fetch loop": [{"first_next": value} for value in (theirs, 0.1, 100.0)],
    }
    assert report.target_rows({"start, hello": rows})[-1].endswith(said)
