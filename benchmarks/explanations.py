"""Do explanations find a planted group? ``python benchmarks/explanations.py`` trains, explains and stores a row each.

Molecules whose label counts a group of atoms (see ``planted.py``): on test molecules that have some, the area under the
ROC curve of atom scores against the atoms of the groups, averaged over molecules. Beside the scores of
``plstm_graph.models.explain`` and what atoms sent in pLSTM layers: PyG's GNNExplainer on the same model, with node and
edge masks of its own over encoded nodes and edges.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import planted
import records
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, GNNExplainer

from plstm_graph.config.models import ModelConfig
from plstm_graph.data import GraphDataset
from plstm_graph.data.encodings import add_encodings
from plstm_graph.models.explain import explain
from plstm_graph.models.graph import GraphModel
from plstm_graph.train.config import TrainConfig
from plstm_graph.train.data import labels, split_of
from plstm_graph.train.inference.restored import restore
from plstm_graph.train.run import train
from plstm_graph.transforms import line_dag

FILE = "explanations.jsonl"
MODEL = ModelConfig(width=32, layers=2, heads=4, dropout=0.0, pooling="sum", rwse=0, head_layers=1)
CONFIG = TrainConfig(metric="mae", epochs=25, batch_size=32, lr=3e-3, accelerator="cpu")
LOCALS = {"plstm": "none", "plstm + gine": "gine"}


class Encoded(nn.Module):
    """A graph model from encoded nodes and edges on, as an Explainer can mask them."""

    def __init__(self, model: GraphModel, graph: Data) -> None:
        super().__init__()
        self.stack, self.pool, self.head = model.stack, model.pool, model.head
        self.dag = line_dag(graph, model.config.order)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """[1, outputs]"""
        x = self.stack(x, edge_index, edge_attr=edge_attr, dag=self.dag)
        return self.head(self.pool(x, x.new_zeros(len(x), dtype=torch.long)))


def masks(model: GraphModel, graph: Data, epochs: int) -> tuple[Tensor, Tensor]:
    """GNNExplainer's masks of nodes and edges as scores of atoms, [N] each; an edge's counts half for either end."""
    with torch.no_grad():
        x, edge_attr = model.encoder(graph.x, graph.edge_index, graph.edge_attr, graph.get("rwse"))
    explainer = Explainer(
        Encoded(model, graph),
        GNNExplainer(epochs=epochs),
        explanation_type="model",
        node_mask_type="object",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
    )
    found = explainer(x, graph.edge_index, edge_attr=edge_attr)
    edges = torch.zeros(len(x)).index_add(0, graph.edge_index.flatten(), found.edge_mask.repeat(2) / 2)
    return found.node_mask.flatten(), edges


def run(group: str, name: str, config: TrainConfig, *, molecules: int, tested: int, mask_epochs: int) -> dict[str, Any]:
    """Trains one model, explains its test molecules and returns the row."""
    dataset = planted.planted(planted.nci(molecules), group)
    parts = split_of(config, dataset)
    model, trained = _trained(config, dataset)
    output, _ = dataset.task.fitted(labels([dataset.graphs[index] for index in parts["train"]])).chosen(None)
    chosen = [dataset.graphs[index] for index in parts["test"]]
    chosen = [graph for graph in chosen if planted.truth(graph, group).any() and not planted.truth(graph, group).all()]
    areas: dict[str, list[float]] = {}
    seconds = {"explain": 0.0, "GNNExplainer": 0.0}
    gaps: list[float] = []
    for graph in add_encodings(chosen[:tested], config.model):
        start = time.perf_counter()
        found = explain(model, graph, output)
        middle = time.perf_counter()
        nodes, edges = masks(model, graph, mask_epochs)
        seconds["explain"] += middle - start
        seconds["GNNExplainer"] += time.perf_counter() - middle
        gaps.append(abs(found.gap))
        scores = {"scores": found.scores, "sent": found.pairs().sum(0), "node mask": nodes, "edge mask": edges}
        for what, score in scores.items():
            areas.setdefault(what, []).append(planted.auc(score, planted.truth(graph, group)))
    count = len(gaps)
    return {
        "group": group,
        "model": name,
        "molecules": len(dataset.graphs),
        "with_group": sum(float(graph.y) > 0 for graph in dataset.graphs),
        "explained": count,
        "test": trained["test"],
        "auc": {what: round(statistics.fmean(values), 4) for what, values in areas.items()},
        "gap_median": statistics.median(gaps),
        "gap_max": max(gaps),
        "seconds_each": {what: round(value / count, 3) for what, value in seconds.items()},
        "minutes_training": trained["minutes"],
        "epochs": config.epochs,
        "mask_epochs": mask_epochs,
        "seed": config.seed,
    }


def _trained(config: TrainConfig, dataset: GraphDataset) -> tuple[GraphModel, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        found = train(replace(config, out=f"{folder}/run"), dataset)
        learner, _ = restore(f"{folder}/run", "cpu")
    assert isinstance(learner.model, GraphModel)
    return learner.model, found


def main(arguments: list[str] | None = None) -> int:
    """Runs every group with every model, stores the rows and prints the areas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", action="append", choices=planted.GROUPS, help="may be repeated (default: all)")
    parser.add_argument("--model", action="append", choices=LOCALS, help="may be repeated (default: all)")
    parser.add_argument("--molecules", type=int, default=1600)
    parser.add_argument("--tested", type=int, default=60, help="most molecules to explain")
    parser.add_argument("--epochs", type=int, default=CONFIG.epochs)
    parser.add_argument("--mask-epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for group in options.group or planted.GROUPS:
        for name in options.model or LOCALS:
            model = replace(MODEL, local=LOCALS[name])
            config = replace(CONFIG, epochs=options.epochs, seed=options.seed, model=model)
            torch.manual_seed(options.seed)  # GNNExplainer draws its first masks
            sizes = {"molecules": options.molecules, "tested": options.tested, "mask_epochs": options.mask_epochs}
            row = run(group, name, config, **sizes)
            records.append(records.RESULTS / FILE, row | records.provenance())
            areas = "  ".join(f"{what} {area:.3f}" for what, area in row["auc"].items())
            print(f"{group}, {name}: {areas}  (mae {row['test']['mae']:.3f}, {row['explained']} molecules)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
