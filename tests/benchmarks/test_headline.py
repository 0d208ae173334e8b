"""The table of the README."""

from pathlib import Path

import headline
import pytest
import records
from plan import read_plan


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Errors of eccentricities: the variant with the best validation is not the one with the best test."""
    scores = {
        "eccentricity: pLSTM": [(0.5, 0.31), (0.5, 0.29)],
        "eccentricity: pLSTM, P mode, layer norm": [(0.2, 0.28)],
        "eccentricity: pLSTM, saturating, logarithmic norm": [(0.3, 0.20)],
        "eccentricity: DAGNN": [(1.0, 1.25)],
        "eccentricity: GINE, 16 layers": [(9.0, 1.24)],
        "distance: pLSTM": [(0.1, 0.1)],
    }
    jobs = {name: [] for name in scores}
    for job in read_plan(records.CONFIGS / "echo.toml").jobs:
        jobs.get(job.entry, []).append(job)
    for name, pairs in scores.items():
        for job, (valid, test) in zip(jobs[name], pairs, strict=False):
            row = {
                "entry": name,
                "config": job.content(),
                "metric": "mae",
                "valid": {"mae": valid},
                "test": {"mae": test},
            }
            records.append(tmp_path / "echo.jsonl", row)
    return tmp_path


def test_a_variant_is_chosen_by_validation_and_the_rival_by_test(results: Path) -> None:
    """A line whose rivals have not run is left out, and all of those without rows."""
    lines = headline.headline(results).splitlines()
    assert lines[2:] == [
        "| [eccentricity of every node](benchmarks/dags.md) | MAE ↓ | 0.300 | **0.280** (P mode, layer norm) "
        "| 1.24 (GINE, 16 layers) | 2 / 1 / 1 |"
    ]


def test_rivals_have_rows_of_their_own(results: Path) -> None:
    (job, *_) = (job for job in read_plan(records.CONFIGS / "small_sets.toml").jobs if job.entry == "lipo: pLSTM")
    scores = {"valid": {"rmse": 0.6}, "test": {"rmse": 0.7}}
    records.append(
        results / "small_sets.jsonl", {"entry": job.entry, "config": job.content(), "metric": "rmse", **scores}
    )
    for name, test in (("chemprop", 0.6994), ("boosting", 0.1)):
        records.append(results / "rivals.jsonl", {"rival": name, "set": "lipo", "metric": "rmse", "test": test})
    assert headline.headline(results).splitlines()[-1] == (
        "| [molecules: lipo](benchmarks/accuracy.md) | RMSE ↓ | 0.700 | the same | **0.699** (chemprop) | 1 / 1 / 1 |"
    )


def test_every_line_has_rows_and_one_best() -> None:
    lines = headline.headline().splitlines()[2:]
    assert len(lines) == len(headline.LINES)
    assert [line for line in lines if line.count("**") != 2] == []


def test_further_data_and_targets_are_read_where_they_are() -> None:
    row = {"valid": {"mae": 1}, "test": {"mae": 2}, "also": {"far": {"mae": 3}}}
    assert headline.pair(row, "test", "mae") == (1, 2)
    assert headline.pair(row, "far", "mae") == (1, 3)
    several = {"by_target": {"arrival": {"valid": {"mae": 4}, "test": {"mae": 5}}}}
    assert headline.pair(row | several, "arrival", "mae") == (4, 5)
