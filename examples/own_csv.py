"""Train on molecules of your own, a CSV with a SMILES column and a target column, and predict new ones.

    python examples/own_csv.py

The file made here holds alkanes, alcohols and amines with the number of their heavy atoms as target.
"""

import argparse
import csv
import tempfile
from pathlib import Path

from plstm_graph.config.models import ModelConfig
from plstm_graph.train import TrainConfig, predict, train


def write_molecules(path: Path) -> None:
    """``smiles`` and ``heavy_atoms`` of 90 chains."""
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["smiles", "heavy_atoms"])
        for length in range(1, 31):
            for end in ("", "O", "N"):
                rows.writerow(["C" * length + end, length + len(end)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_molecules(Path(folder) / "my.csv")
        config = TrainConfig(
            data=f"{folder}/my.csv",
            targets=("heavy_atoms",),
            epochs=arguments.epochs,
            batch_size=16,
            lr=5e-3,
            accelerator="cpu",
            out=f"{folder}/run",
            model=ModelConfig(width=32, layers=2, pooling="sum", dropout=0.0),
        )
        found = train(config, progress=False)
        print(f"test r2 {found['test']['r2']:.4f} after {found['epochs']} epochs")
        answers = predict(f"{folder}/run", ["CCCCCO", "CC(C)CCN", "no molecule"])
        for smiles, value in zip(answers.smiles, answers.values[:, 0].tolist(), strict=True):
            print(f"{smiles:12} {value:.2f}")
        print(answers.rejected[0].reason)


if __name__ == "__main__":
    main()
