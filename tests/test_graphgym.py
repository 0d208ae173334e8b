"""GraphGym trains the registered layer and network from a config."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.utils import degree, to_undirected

from plstm_graph import PLSTM, PLSTMConv

pytest.importorskip("yacs")
pytest.importorskip("pytorch_lightning")

from torch_geometric.graphgym import register
from torch_geometric.graphgym.config import cfg, set_cfg
from torch_geometric.graphgym.model_builder import create_model
from torch_geometric.graphgym.train import GraphGymDataModule, train

import plstm_graph.graphgym as gym

CONFIG = """
out_dir: {out}
accelerator: cpu
num_workers: 0
dataset: {{format: tiny, name: tiny, task: graph, task_type: classification, transductive: false,
          split: [0.6, 0.2, 0.2]}}
train: {{batch_size: 8, enable_ckpt: false, eval_period: 1}}
model: {{type: {model}, loss_fun: cross_entropy, graph_pooling: mean}}
gnn: {{layer_type: {layer}, layers_pre_mp: 1, layers_mp: 2, layers_post_mp: 1, dim_inner: 8, head: graph}}
optim: {{max_epoch: 15, base_lr: 0.02}}
plstm: {{heads: 2, modes: P}}
"""


class Tiny(InMemoryDataset):
    """Rings (0) and chains (1), with the degree as feature."""

    def __init__(self) -> None:
        super().__init__()
        graphs = []
        for index in range(40):
            size = 4 + index // 2 % 5
            ring = torch.stack([torch.arange(size), (torch.arange(size) + 1) % size])
            columns = ring if index % 2 == 0 else ring[:, :-1]
            columns = to_undirected(columns)
            x = degree(columns[0], size).view(-1, 1) - torch.tensor([0.0, 1.0, 2.0])
            graphs.append(Data(x, columns, y=torch.tensor([index % 2])))
        self._data, self.slices = self.collate(graphs)
        for part, numbers in zip(("train", "val", "test"), torch.arange(40).split([24, 8, 8]), strict=True):
            self._data[f"{part}_graph_index"] = numbers


@pytest.fixture
def configure(tmp_path: Path) -> Iterator:
    """Sets the global config from :data:`CONFIG`, and back to the defaults in the end."""
    register.loader_dict["tiny"] = lambda format, name, folder: Tiny() if format == "tiny" else None

    def load(**names: str) -> None:
        (tmp_path / "config.yaml").write_text(CONFIG.format(out=tmp_path, **names))
        cfg.merge_from_file(tmp_path / "config.yaml")

    yield load
    del register.loader_dict["tiny"]
    set_cfg(cfg)


@pytest.mark.parametrize(("model", "layer", "kind"), [("gnn", "plstmconv", PLSTMConv), ("plstm", "gcnconv", PLSTM)])
def test_a_config_trains(model: str, layer: str, kind: type, configure, tmp_path: Path) -> None:
    configure(model=model, layer=layer)
    data = GraphGymDataModule()
    network = create_model()
    assert any(isinstance(module, kind) for module in network.modules())
    assert all(conv.mode == "P" for conv in network.modules() if isinstance(conv, PLSTMConv))
    batch = next(iter(data.train_dataloader()))
    before = network._shared_step(batch.clone(), "train")["loss"].item()
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    train(network, data, logger=False, trainer_config=options)
    assert network._shared_step(batch.clone(), "train")["loss"].item() < 0.5 * before


def test_edge_features_of_an_encoder(configure) -> None:
    configure(model="plstm", layer="gcnconv")
    cfg.dataset.edge_encoder, cfg.dataset.edge_encoder_name = True, "Bond"
    cfg.dataset.edge_encoder_bn = False  # GraphGym's would normalise the nodes
    network = gym.PLSTMNetwork(3, 2)
    batch = next(iter(GraphGymDataModule().train_dataloader()))
    batch.edge_attr = torch.zeros(batch.num_edges, 3, dtype=torch.long)
    first, label = network.eval()(batch.clone())
    batch.edge_attr[:, 0] = 2
    assert label.shape == (batch.num_graphs,)
    assert not torch.equal(network(batch)[0], first)


def test_importing_again_changes_nothing() -> None:
    cfg.plstm.heads = 2
    importlib.reload(gym)
    assert cfg.plstm.heads == 2
    assert register.layer_dict["plstmconv"] is gym.PLSTMLayer
    assert register.network_dict["plstm"] is gym.PLSTMNetwork
    set_cfg(cfg)
    defaults = inspect.signature(PLSTM).parameters
    for name, value in cfg.plstm.items():
        assert value == (defaults[name].default if name != "local" else "none"), name


def test_without_yacs_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("yacs", "yacs.config"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "plstm_graph.graphgym")
    with pytest.raises(ImportError, match=r"^yacs is not installed; pip install 'plstm-graph\[graphgym\]'$"):
        importlib.import_module("plstm_graph.graphgym")


def test_the_extra_has_what_the_end_of_a_run_needs(tmp_path: Path) -> None:
    """PyG's main ends with agg_runs, which writes for TensorBoard by default."""
    agg_runs = importlib.import_module("torch_geometric.graphgym.utils.agg_runs")
    assert agg_runs.SummaryWriter is not None
    agg_runs.dict_list_to_tb([{"epoch": 0, "loss": 0.5}], agg_runs.SummaryWriter(str(tmp_path)))
    assert list(tmp_path.glob("events*"))
