import json
from pathlib import Path

import pytest
import rounding
import torch
from tables import rounding_table


def test_errors_by_hand() -> None:
    exact = torch.tensor([1.0, -2.0, 0.06, 0.94], dtype=torch.double)  # a mean size of 1
    found = rounding.errors(exact + torch.tensor([0.1, 0.0, 0.03, 0.0]), exact)
    assert found["mean"] == pytest.approx(0.13 / 4, rel=1e-6)
    assert found["largest"] == pytest.approx(0.1, rel=1e-6)
    assert found["relative_small"] == pytest.approx(0.5, rel=1e-6)
    assert found["off_by_a_tenth"] == 0.5


def test_the_benchmark_in_small(tmp_path: Path) -> None:
    assert rounding.main(["--molecules", "3", "--heads", "2", "--width", "4", "--results", str(tmp_path)]) == 0
    row = json.loads((tmp_path / rounding.FILE).read_text())
    means = [found["mean"] for found in row["rounded"].values()]
    assert 0 < means[0] < means[1] < means[2] < 0.05
    assert rounding_table([row]).count("\n| ") == 4
