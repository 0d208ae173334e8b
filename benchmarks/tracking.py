"""State tracking: which permutation do all tokens so far make? ``python benchmarks/tracking.py``

Tokens are permutations of a few things, and every token is asked for the product of those before it. Of two things
(S2) that is parity, and a number that may be negative carries it. Products of three things (S3) depend on their order:
no product of numbers, one state an edge, tells them apart, and J = 2 states can (Pöppel et al. 2025, appendix B.5). One
``PLSTMChain`` and a linear map of what it says, learnt on short chains, asked on longer ones. A row for each run goes
to ``results/tracking.jsonl``.
"""

import argparse
import sys
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plstm_graph import PLSTMChain

OUT = records.RESULTS / "tracking.jsonl"
LEARNT = (16, 64)
"""Tokens of a chain in the first half of the steps and in the second."""
LENGTHS = (64, 256, 1024)
"""Tokens of chains that are asked about."""
BATCH, TESTED, HEADS, WIDTH = 64, 256, 8, 8


def draw(things: int, chains: int, tokens: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Tokens [chains, tokens], the first of them a beginning, and the product of those before each, [chains, tokens].

    Permutations are counted from 0, which changes nothing; a beginning is the number behind the last.
    """
    every = np.array(list(permutations(range(things))))
    number = {tuple(each): at for at, each in enumerate(every)}
    product = np.array([[number[tuple(then[first])] for first in every] for then in every])
    found = generator.integers(len(every), size=(chains, tokens))
    before = np.zeros_like(found)
    for at in range(2, tokens):
        before[:, at] = product[found[:, at - 1], before[:, at - 1]]
    found[:, 0] = len(every)
    return torch.from_numpy(found), torch.from_numpy(before)


class Tracker(nn.Module):
    """A chain layer and a linear map: tokens [B, n] to logits of permutations [B, n, many]."""

    def __init__(self, many: int, states: int) -> None:
        super().__init__()
        self.many = many
        self.chain = PLSTMChain(many + 1, WIDTH, heads=HEADS, states=states, transition="saturating")
        self.read = nn.Linear(HEADS * WIDTH, many)
        with torch.no_grad():  # gates begin as what the token says alone
            self.chain.gate_bias.zero_()
            gates = self.chain.lin.weight[self.chain.lin.widths[0] :]
            nn.init.normal_(gates)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.read(self.chain(F.one_hot(tokens, self.many + 1).float()))
        return found


def train(things: int, states: int, seed: int, steps: int, rate: float) -> dict[str, Any]:
    """Shares of the later half of all tokens whose product is right, by the length of the chain."""
    torch.manual_seed(seed)
    generator = np.random.default_rng((seed, things))
    model = Tracker(int(np.prod(range(1, things + 1))), states)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    begin = time.perf_counter()
    for step in range(steps):
        tokens, wanted = draw(things, BATCH, LEARNT[2 * step // steps], generator)
        loss = F.cross_entropy(model(tokens).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - begin
    right = {}
    for length in LENGTHS:
        given, wanted = draw(things, TESTED, length, np.random.default_rng((10**6, things, length)))
        with torch.no_grad():
            found = model(given).argmax(-1)
        right[str(length)] = round(float((found == wanted)[:, length // 2 :].float().mean()), 4)
    return {"right": right, "loss": round(float(loss.detach()), 4), "seconds": round(seconds, 1)}


@records.guarded
def main(arguments: list[str] | None = None) -> int:
    """A row for each group of permutations, number of states and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--things", type=int, nargs="+", default=[2, 3], help="that are permuted")
    parser.add_argument("--states", type=int, nargs="+", default=[1, 2], help="J")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=1e-2, help="largest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for things in options.things:
        for states in options.states:
            for seed in options.seeds:
                found = train(things, states, seed, options.steps, options.rate)
                row = {"things": things, "states": states, "seed": seed, "steps": options.steps, **found}
                print(row, flush=True)
                records.append(options.out, row | records.provenance())
    return 0


if __name__ == "__main__":
    sys.exit(main())
