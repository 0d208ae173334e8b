"""From a checkpoint to one file that predicts wherever torch runs: no other package, nothing of this one."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plstm_graph import __version__
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import BackendUnavailable, CheckpointError, TargetError, first_line
from plstm_graph.io.files import atomic_write
from plstm_graph.models.graph import GraphModel
from plstm_graph.models.padded import Padded, PaddedModel
from plstm_graph.train.answering import Answering
from plstm_graph.train.inference.restored import network, restore

DESCRIPTION = "plstm_graph.json"
"""Name of the description inside the file: ``torch.export.load(path, extra_files={DESCRIPTION: ""})`` fills it in."""

PLAIN = {"aten", "prims", "higher_order"}
"""Namespaces of operators that every torch has."""

SHAPES = {
    "x": "[graphs, nodes, features]",
    "edge_index": "[graphs, 2, columns]",
    "edge_attr": "[graphs, columns, features]",
    "rank": "[graphs, nodes]",
    "num_nodes": "[graphs]",
    "num_edges": "[graphs]",
}
"""Inputs of a program, as ``plstm_graph.models.padded.Padded`` has them; named sizes are free, features are not."""


class Predictor(nn.Module):
    """Padded graphs to what a user reads: targets in their own units, or probabilities; [graphs, outputs]."""

    def __init__(self, learner: Answering) -> None:
        super().__init__()
        assert isinstance(learner.model, GraphModel)
        self.model, self.learner = PaddedModel(learner.model), learner
        learner.model = nn.Identity()  # what is wanted of it is how labels are scaled

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, rank: Tensor, num_nodes: Tensor, num_edges: Tensor
    ) -> Tensor:
        """See :class:`plstm_graph.models.padded.Padded` for the shapes."""
        return self.learner.readable(self.model(x, edge_index, edge_attr, rank, num_nodes, num_edges))


def export(checkpoint: str | PathLike[str], out: str | PathLike[str]) -> dict[str, Any]:
    """Write the model of a checkpoint as a ``torch.export`` program of torch's own operations.

    ``torch.export.load(out).module()`` takes the six tensors of :class:`plstm_graph.models.padded.Padded`, for any
    number of graphs, nodes and columns (at least one of each), and returns what :func:`plstm_graph.train.predict` does.

    Args:
        checkpoint: file, or folder of a run.
        out: file to write, ``.pt2`` by convention and never ``.onnx``; whole or not at all.

    Returns:
        The description that the file carries: inputs, outputs, and by what nodes have to be ranked.

    Raises:
        CheckpointError: the checkpoint cannot be used, or its model needs operators of another package.
        BackendUnavailable: this torch cannot export it (2.6 cannot, 2.13 can).
        TargetError: ``out`` promises ONNX, or cannot be written.
    """
    if Path(out).suffix.lower() == ".onnx":
        raise TargetError(f"cannot write {out}: what is exported is a torch.export program, not ONNX; name it .pt2")
    learner, meta = restore(checkpoint, "cpu")
    model = network(learner, checkpoint)
    example, order = _example(model.encoder.features), model.config.order
    if learner.task.level != "graph":
        raise CheckpointError(f"{checkpoint} answers for each {learner.task.level}; only one for a graph is exported")
    inputs = example._asdict()
    sizes = {name: torch.export.Dim(name, min=1) for name in ("graphs", "nodes", "columns")}
    dynamic = [
        {place: sizes[word] for place, word in enumerate(shape.strip("[]").split(", ")) if word in sizes}
        for shape in SHAPES.values()
    ]
    predictor = Predictor(learner).eval()
    try:
        with torch.no_grad():
            program = torch.export.export(predictor, tuple(example), dynamic_shapes=tuple(dynamic), strict=False)
    except Exception as error:  # older releases know no loops, or other shapes than those they have seen
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise BackendUnavailable(
            f"torch {torch.__version__} cannot export the model of {checkpoint}; use torch 2.13 ({reason})"
        ) from error
    foreign = sorted(operators(program) - PLAIN)
    if foreign:
        raise CheckpointError(f"the model of {checkpoint} needs operators beyond torch's own: {', '.join(foreign)}")
    description = {
        "inputs": {name: f"{str(x.dtype).removeprefix('torch.')} {SHAPES[name]}" for name, x in inputs.items()},
        "outputs": learner.task.outputs,
        "task": learner.task.name,
        "rank": order,
        "featuriser": meta.featuriser,
        "version": __version__,
    }
    with atomic_write(out) as temp, temp.open("wb") as stream:
        torch.export.save(program, stream, extra_files={DESCRIPTION: json.dumps(description, indent=2)})
    return description


def _example(features: FeatureSpec) -> Padded:
    """Two graphs of the kind the model reads."""
    graphs, nodes, columns = 2, 3, 4

    def zeros(length: int, sizes: tuple[int, ...], width: int) -> Tensor:
        if sizes:
            return torch.zeros(graphs, length, len(sizes), dtype=torch.long)
        return torch.zeros(graphs, length, width)

    chain = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    return Padded(
        zeros(nodes, features.node_sizes, features.node_dim),
        chain.expand(graphs, -1, -1).clone(),
        zeros(columns, features.edge_sizes, features.edge_dim),
        torch.arange(nodes).expand(graphs, -1).clone(),
        torch.full((graphs,), nodes),
        torch.full((graphs,), columns),
    )


def operators(program: torch.export.ExportedProgram) -> set[str]:
    """Namespaces of the operators in a program, those inside its loops included."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return {node.target.namespace for graph in graphs for node in graph.nodes if hasattr(node.target, "namespace")}
