"""torch.compile in training steps: the same run within rounding, the same checkpoint, and plain errors."""

from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_dataset

from plstm_graph.config.models import ModelConfig
from plstm_graph.data.packed import PackedGraphs
from plstm_graph.errors import ConfigError
from plstm_graph.ops.dispatch import has_compiled
from plstm_graph.train import evaluate, train
from plstm_graph.train.checkpoint import read
from plstm_graph.train.compiling import check_compile

CPU = torch.device("cpu")


def test_a_compiled_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole, as for inductor, and run as it is: generating code would take a minute."""
    if not has_compiled(CPU):
        pytest.skip("the compiled backend of the CPU cannot run here")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # of tests before
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="eager"))
    dataset = small_dataset(tmp_path)
    found, states = {}, {}
    for compiled in (False, True):
        out = tmp_path / f"compiled-{compiled}"
        options = {"compile": compiled, "model_layers": 1, "model_modes": "D", "model_dropout": 0.0}
        found[compiled] = train(small_config(out=out, epochs=2, batch_size=16, **options), dataset)
        states[compiled] = read(out)["state_dict"]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 1 <= graphs <= 2  # training steps, and nothing for evaluation
    assert found[True]["test"]["r2"] == pytest.approx(found[False]["test"]["r2"], abs=1e-3)
    assert states[True].keys() == states[False].keys()
    for key, value in states[False].items():
        torch.testing.assert_close(states[True][key], value, rtol=1e-3, atol=1e-4)
    again = evaluate(tmp_path / "compiled-True", dataset, part="valid")
    assert again["r2"] == pytest.approx(found[True]["valid"]["r2"], abs=1e-6)


def test_what_cannot_be_compiled_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, model = small_dataset(tmp_path), ModelConfig(rwse=0)
    packed = PackedGraphs.from_data_list(dataset.encoded(model), exclude_keys=["smiles"])
    with pytest.raises(ConfigError, match="these graphs cannot be packed"):
        check_compile(model, dataset.graphs, CPU)
    with pytest.raises(ConfigError, match="needs the backend 'numba'"):
        check_compile(ModelConfig(backend="scatter"), packed, CPU)
    check_compile(ModelConfig(model="gin"), dataset.graphs, CPU)  # it needs no line graph
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="there is no no-such-compiler; install one, or leave compile out"):
        check_compile(model, packed, CPU)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no g\+\+ or clang\+\+"):
        train(small_config(compile=True), dataset)
