"""State tracking: products of permutations by hand, and rows."""

from itertools import permutations

import numpy as np
import records
import torch
import tracking
from tables import tracking_table


def test_products_are_those_of_moving_things():
    """Three things are moved by each token before; where they stand then has the number of the product."""
    every = list(permutations(range(3)))
    tokens, before = tracking.draw(3, 5, 7, np.random.default_rng(0))
    assert (tokens[:, 0] == len(every)).all()
    for chain, wanted in zip(tokens.tolist(), before.tolist(), strict=True):
        places = [0, 1, 2]
        for token, number in zip(chain, wanted, strict=True):
            assert every[number] == tuple(places)
            if token < len(every):
                places = [every[token][place] for place in places]


def test_two_things_are_parity():
    tokens, before = tracking.draw(2, 4, 9, np.random.default_rng(0))
    odd = torch.where(tokens == 2, 0, tokens).cumsum(1)
    assert torch.equal(before[:, 1:], odd[:, :-1] % 2)


def test_rows_and_their_table(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "LENGTHS", (4, 1000))
    out = tmp_path / "rows.jsonl"
    words = ["--things", "3", "--states", "1", "2", "--seeds", "0", "--steps", "2", "--out", str(out)]
    assert tracking.main(words) == 0
    rows = records.read(out)
    assert [row["states"] for row in rows] == [1, 2]
    assert all(0 <= share <= 1 for row in rows for share in row["right"].values())
    twice = [rows[0] | {"right": {"4": 1.0, "1000": 0.5}}, rows[0] | {"right": {"4": 0.5, "1000": 0.1}}]
    lines = tracking_table(twice).splitlines()
    assert lines[0] == "| tokens | J | 4 tokens | 1,000 tokens | by chance | seeds | seconds a run |"
    assert lines[2].startswith("| S3 | 1 | 0.750 (0.500 to 1.000) | 0.300 (0.100 to 0.500) | 0.167 | 2 | ")
