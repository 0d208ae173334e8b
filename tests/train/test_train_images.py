"""Images through the trainer: a set by name, networks by name, steps as CUDA graphs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import small_dataset

from plstm_graph.config.models import VisionConfig
from plstm_graph.data import DATASETS, arrow, load
from plstm_graph.data.dataset import Dataset
from plstm_graph.data.examples import Arrays, take
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import CheckpointError, ConfigError, DataError
from plstm_graph.models.patches_read import patches_read
from plstm_graph.models.vision import ImageModel, build
from plstm_graph.nn.captured import Captured
from plstm_graph.tasks import Multiclass
from plstm_graph.train import evaluate, export, train
from plstm_graph.train.compatible import check_same_kind
from plstm_graph.train.config import TrainConfig, override
from plstm_graph.train.defaults import default_config
from plstm_graph.train.inference.restored import restore
from plstm_graph.train.module import Learner
from plstm_graph.train.outputs import outputs
from plstm_graph.train.page import write_page

SMALL = {
    "model.width": 16,
    "model.heads": 2,
    "model.layers": 2,
    "model.patch_size": 4,
    "epochs": 1,
    "accelerator": "cpu",
}


def config(**values: object) -> TrainConfig:
    return override(default_config("digits"), SMALL | values)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load("digits")
    assert isinstance(data.examples, Arrays)
    return replace(data, examples=data.examples.batch(range(300)))


@pytest.mark.parametrize("network", ["plstm-vision", "cnn"])
def test_images_are_no_numbers_of_64_bits(network: str, digits: Dataset) -> None:
    for precision, name in {"64-true": "64-true", "64": "64-true", "bf16-true": "bf16-true"}.items():
        with pytest.raises(ConfigError, match=f"bf16-mixed or 16-mixed, not {name}"):
            train(config(**{"model.model": network, "model.layers": 2}, precision=precision), digits)


def test_arrays_have_a_label_for_each_row(digits: Dataset) -> None:
    """Images behind the last label were left out without a word."""
    x, y = digits.examples.x, digits.examples.y
    with pytest.raises(DataError, match="a row for each example, got 300 and 299"):
        Arrays(x, y[:-1])
    with pytest.raises(DataError, match=r"y must be a tensor, got ndarray; call torch\.as_tensor\(y\)"):
        Arrays(x, y.numpy())


def test_pixels_must_be_known(digits: Dataset) -> None:
    """The training diverged, and the advice was a lower learning rate."""
    x = digits.examples.x.clone()
    x[7, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match="x must be finite numbers"):
        train(config(epochs=1), replace(digits, examples=Arrays(x, digits.examples.y)))


@pytest.mark.parametrize(("network", "layers"), [("plstm-vision", 2), ("vit", 2), ("cnn", 4)])
def test_a_network_learns_digits(network: str, layers: int, digits: Dataset, tmp_path: Path) -> None:
    own = {"model.model": network, "model.layers": layers, "out": tmp_path / "run"}
    found = train(config(**own, epochs=8, lr=3e-3, batch_size=16), digits)
    assert found["test"]["accuracy"] > 0.5
    assert (tmp_path / "run" / "roc.png").is_file()
    assert (tmp_path / "run" / "patches.png").is_file() == (network == "plstm-vision")
    assert ("What the network reads" in write_page([tmp_path / "run"]).read_text()) == (network == "plstm-vision")
    whole = evaluate(tmp_path / "run", data="digits", part="all")
    assert whole["graphs"] == 1797
    assert whole["accuracy"] > 0.5
    with pytest.raises(CheckpointError, match="holds a network of images, not of graphs; use evaluate"):
        export(tmp_path / "run", tmp_path / "x.pt2")


def test_networks_that_answer_together_show_what_they_read(digits: Dataset, tmp_path: Path) -> None:
    """To first order what the mean of their chances would lose: what each reads, added up."""
    found = train(config(ensemble=2, out=tmp_path), digits)
    assert (tmp_path / "patches.png").is_file()
    assert "What the network reads" in write_page([tmp_path]).read_text()
    assert evaluate(tmp_path, digits, part="test")["accuracy"] == found["test"]["accuracy"]
    learner, _ = restore(tmp_path, "cpu")  # as the images are
    batch = digits.examples.batch(range(3))
    read = patches_read(learner.model, batch)
    assert read.shape == (3, 4, 2, 2)
    one = learner.model.members[0]
    torch.testing.assert_close(patches_read(one, batch), patches_read(one.network, batch.x))
    learner.model.members[1] = one
    torch.testing.assert_close(patches_read(learner.model, batch), patches_read(one, batch), rtol=1e-3, atol=1e-6)


def test_a_network_of_graphs_says_that_it_reads_no_images(digits: Dataset) -> None:
    with pytest.raises(DataError, match="'gine' reads graphs, and these data are images; try --model plstm-vision"):
        train(override(default_config("digits"), {"model.model": "gine", "accelerator": "cpu"}), digits)


def test_a_set_that_is_there_to_score_says_so(digits: Dataset) -> None:
    """As arrow-384, whose images take a while to draw."""
    half = len(digits.examples) // 2
    parts = {"train": [], "valid": list(range(half)), "test": list(range(half, len(digits.examples)))}
    far = replace(digits, name="arrow-384", default_split="official", parts=parts)
    with pytest.raises(DataError, match="it is there to score what was trained on --data arrow, with evaluate --check"):
        train(config(), far)
    with pytest.raises(DataError, match=r"trained on other data, with evaluate .* --data far --split-part test; train"):
        train(config(), replace(far, name="far"))


def test_an_option_of_graphs_is_refused_in_the_name_of_the_model() -> None:
    with pytest.raises(ConfigError, match=r"^model 'plstm-vision': unknown option 'model\.order'; choose one of"):
        config(**{"model.order": "bfs"})


def test_arrows_are_learnt_by_the_model_of_the_paper() -> None:
    found = default_config("arrow")
    assert (found.epochs, found.batch_size, found.lr, found.weight_decay, found.warmup_epochs) == (
        50,
        128,
        1e-4,
        0.05,
        1,
    )
    with torch.device("meta"):
        model = build(found.model, FeatureSpec(image=(3, 192, 192)), Multiclass(("hit",), classes=2))
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(5.55e6, rel=0.01)
    # What belongs to graphs alone, and was not chosen, does not come along to another kind of model.
    assert override(TrainConfig(), {"model.model": "vit"}).model == VisionConfig(model="vit")
    chosen = override(override(TrainConfig(), {"model.layers": 3}), {"model.model": "vit"})
    assert chosen.model == VisionConfig(model="vit", layers=3)


def test_graphs_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="model 'vit' reads images, and these data are none"):
        train(config(**{"model.model": "vit"}), small_dataset(tmp_path))


def small_model(digits: Dataset) -> ImageModel:
    torch.manual_seed(0)
    return build(config().model, digits.features, digits.task)


def test_weight_decay_leaves_norms_biases_and_positions_alone(digits: Dataset) -> None:
    model = small_model(digits)
    decayed, free = Learner(model, digits.task, weight_decay=0.1)._groups()
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert free["weight_decay"] == 0
    assert {names[id(weight)].rpartition(".")[2] for weight in decayed["params"]} == {"weight", "angle"}
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert "network.patches.position" in {names[id(weight)] for weight in free["params"]}
    assert "network.stack.0.mixer.0.norm.weight" in {names[id(weight)] for weight in free["params"]}


def test_batches_of_one_shape_are_captured(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def graphed(passes: torch.nn.Module, inputs: tuple[torch.Tensor, ...], **rest: bool) -> torch.nn.Module:
        calls.append(inputs[0].shape)
        return passes

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    model = small_model(digits).train()
    captured = Captured(model)
    for rows in (range(8), range(8, 16), range(3)):  # the last one is smaller: as it is
        batch = digits.examples.batch(rows)
        assert torch.equal(captured(batch), model(batch))
    assert calls == [torch.Size([8, 1, 8, 8])]
    model.eval()
    assert torch.equal(captured(batch), model(batch))


def test_a_batch_of_another_shape_is_not_compiled_for(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda passes, inputs, **rest: passes)
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        compiled.append(inputs)
        return graph

    model = small_model(digits).train()
    model.stack.compile(fullgraph=True, backend=backend)
    captured = Captured(model)
    found = captured(digits.examples.batch(range(8)))
    assert len(compiled) == 2  # P and D
    torch.testing.assert_close(captured(digits.examples.batch(range(3))), found[:3])
    assert len(compiled) == 2


def test_a_run_is_scored_on_further_data_of_the_same_kind(digits: Dataset, tmp_path: Path) -> None:
    found = train(config(also=("digits",), out=tmp_path), digits)
    assert set(found["also"]) == {"digits"}
    assert "Further data" in write_page([tmp_path]).read_text()
    assert found["graphs"]["digits"] == 180
    assert 0 < found["also"]["digits"]["accuracy"] < 1
    with pytest.raises(
        DataError, match=r"nav17 does not suit the model: it has labels of 1 target \(regression of \w+\) and molecules"
    ):
        train(config(also=("nav17",)), digits)


def test_what_is_scored_lies_on_the_device_of_the_model(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, once: batches are then made, and images rendered, there."""
    asked: list[tuple[int, torch.device]] = []
    monkeypatch.setattr(
        "plstm_graph.train.placement.fits", lambda nbytes, device: asked.append((nbytes, device)) or True
    )
    sent: list[torch.device] = []
    to = Arrays.to
    monkeypatch.setattr(Arrays, "to", lambda self, device: sent.append(len(self)) or to(self, device))
    learner = Learner(small_model(digits), digits.task)
    part = take(digits.examples, range(200))
    assert len(outputs(learner, part, batch_size=50).values) == 200
    assert asked == [(digits.examples.nbytes, torch.device("cpu"))]
    assert sent[0] == 300


def few_arrows(size: int, **parts: int) -> Dataset:
    """Arrow pointing of so many images a part."""
    seeded = {part: (count, number) for number, (part, count) in enumerate(parts.items())}
    info = replace(DATASETS["arrow"], options={"size": size, "parts": seeded})
    return arrow.load(info)


def test_images_of_another_size_are_of_the_same_kind() -> None:
    near, far = few_arrows(192, train=2), few_arrows(384, test=2)
    check_same_kind(far, near.task, near.features, None)
    grey = replace(far, features=FeatureSpec(image=(1, 384, 384)))
    with pytest.raises(DataError, match="has images of 1 channel, and the model takes images of 3 channels;"):
        check_same_kind(grey, near.task, near.features, None)


def test_learnt_at_one_size_and_scored_at_another(tmp_path: Path) -> None:
    """As ``evaluate --data arrow-384`` does."""
    small = {"model.width": 16, "model.heads": 2, "model.layers": 2, "also": (), "epochs": 1, "accelerator": "cpu"}
    train(override(default_config("arrow"), small | {"out": tmp_path}), few_arrows(192, train=12, valid=4, test=4))
    found = evaluate(tmp_path, few_arrows(384, valid=4, test=6), part="test")
    assert found["graphs"] == 6
    assert 0 <= found["accuracy"] <= 1
