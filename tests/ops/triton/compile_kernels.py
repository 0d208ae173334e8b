"""Compile every kernel that operator and layer launch for GPUs that are not here: ``compile_kernels.py 80 90``.

The interpreter runs much that a compiler refuses. A process of its own: in that of the tests they are interpreted.
"""

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from plstm_graph import Gates, LineDAG, PLSTMConv, propagate
from plstm_graph.grid import ChainGates, GridGates, image
from plstm_graph.grid import chain as sequence
from plstm_graph.grid.gates import MODES
from plstm_graph.grid.triton import images, large, sequences
from plstm_graph.line_dag import plan
from plstm_graph.line_dag.triton import build
from plstm_graph.ops import triton as backend
from plstm_graph.ops.triton import call, gates, norm, sweep

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32"}
NAMES |= {torch.int64: "i64", torch.bool: "i1"}
SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99}
"""KiB of shared memory that a program may have, by compute capability (CUDA C++ programming guide)."""
PROCESSORS = 132
CASES = [  # heads, K, V, dtype, mode, transition, whether heads stand side by side and have a bias
    (8, 16, 16, torch.float32, "P", "tanh", True),
    (8, 16, 32, torch.bfloat16, "D", "saturating", True),
    (1, 128, 128, torch.float32, "P", "tanh", False),
]


class Compiler:
    """Takes the place of ``launch``."""

    def __init__(self, capabilities: list[int]) -> None:
        self.capabilities, self.shared = capabilities, dict[Any, int]()

    def launch(
        self, kernel: Any, grid: Any, tensors: Any, tables: Any, numbers: Any, constants: Any, options: Any
    ) -> None:
        kinds = [f"*{NAMES[x.dtype]}" for x in (*tensors, *tables)] + ["i32"] * len(numbers)
        given = len(kinds)
        kinds += ["constexpr"] * len(constants)
        for capability in self.capabilities:
            key = (kernel.fn, *kinds, constants, options, capability)
            if key not in self.shared:
                source = ASTSource(
                    kernel,
                    dict(zip(kernel.arg_names, kinds, strict=True)),
                    {(given + i,): value for i, value in enumerate(constants)},
                    {(i,): [["tt.divisibility", 16]] for i in range(len(tensors))},
                )
                made = triton.compile(
                    source, target=GPUTarget("cuda", capability, 32), options={"num_stages": 1, **dict(options)}
                )
                self.shared[key] = made.metadata.shared
                assert made.asm["cubin"], kernel
                most = SHARED[capability] * 1024
                assert made.metadata.shared <= most, (kernel.fn, kinds, made.metadata.shared, most)


def chain(nodes: int) -> LineDAG:
    first = torch.arange(nodes - 1)
    return LineDAG.from_edge_index(torch.stack([first, first + 1]), nodes, batch=torch.zeros(nodes, dtype=torch.long))


def star(nodes: int) -> LineDAG:
    first = torch.zeros(nodes - 1, dtype=torch.long)
    edges = torch.stack([first, torch.arange(1, nodes)])
    return LineDAG.from_edge_index(edges, nodes, batch=torch.zeros(nodes, dtype=torch.long))


def run(heads: int, keys: int, values: int, dtype: torch.dtype, mode: str, transition: str, joined: bool) -> None:
    """Forward and backward, with a graph for each tile, a wide one beyond them and a deep one; what comes out has no
    meaning."""
    dag = LineDAG.collate([chain(nodes) for nodes in (20, 60, 100, 250, 700)] + [star(300)])
    nodes, edges, pairs = dag.num_nodes, dag.num_edges, dag.num_pairs

    def zeros(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, requires_grad=True)

    four = Gates(*(zeros(rows, heads, dtype=torch.float32) for rows in (edges, pairs, edges, nodes)))
    vectors = (zeros(nodes, heads, width) for width in (keys, keys, values))
    propagate(*vectors, four, dag, backend="triton").sum().backward()
    conv = PLSTMConv(
        *(32, values, heads),
        key_channels=keys,
        edge_dim=8,
        mode=mode,
        transition=transition,
        concat=joined,
        bias=joined,
        backend="triton",
    ).to(dtype)
    conv(zeros(nodes, 32), None, zeros(dag.column.numel(), 8), dag=dag).sum().backward()


def run_building() -> None:
    """Every kernel that builds a line graph."""
    building = build._Building(torch.tensor([[0, 1], [1, 0]]), 2, None)
    building.cut(building.lay_out())


def run_image(mode: str, columns: int, width: int, dtype: torch.dtype, form: str = "triton") -> None:
    """The same of an image."""

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(1, *shape, dtype=dtype, requires_grad=True)

    here = 2, 3, columns  # heads, rows, columns
    vectors = (zeros(*here, width, dtype=dtype) for _ in range(3))
    gates = GridGates(zeros(4, *here, 2), zeros(4, *here, 2, 2), zeros(4, *here, 2), zeros(*here), mode)
    image(*vectors, gates, form=form).sum().backward()


def run_chain(width: int, dtype: torch.dtype) -> None:
    """The same of a chain."""
    vectors = (torch.zeros(1, 2, 100, width, dtype=dtype, requires_grad=True) for _ in range(3))
    gates = (torch.zeros(1, 2, 100, requires_grad=True) for _ in range(4))
    sequence(*vectors, ChainGates(*gates), form="triton")[0].sum().backward()


if __name__ == "__main__":
    compiler = Compiler([int(capability) for capability in sys.argv[1:]])
    plan.NARROW = 1
    backend.runs_here, sweep.processors = lambda device: None, lambda device: PROCESSORS
    for module in (build, call, gates, norm, sweep, images, large, sequences):
        module.launch = compiler.launch
    run_building()
    for case in CASES:
        run(*case)
    for mode in MODES:
        run_image(mode, 5, 16, torch.float32)
    for width, dtype in ((32, torch.bfloat16), (64, torch.float32), (128, torch.bfloat16), (128, torch.float32)):
        run_image("P", 18, width, dtype)
        run_image("P", 18, width, dtype, "triton_tiles")
        if (width, dtype) != (64, torch.float32):  # slow to compile, and 128 takes more room
            run_chain(width, dtype)
    print(len(compiler.shared), max(compiler.shared.values()))
