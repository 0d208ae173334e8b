"""The table of data sets, and what a name may be."""

import math
from importlib.util import find_spec
from pathlib import Path

import pandas
import pytest
from small_runs import small_config

from plstm_graph.config import names
from plstm_graph.config.architectures import MODELS
from plstm_graph.config.models import FINGERPRINTS
from plstm_graph.data import DATASETS, SPLITS, datasets, load, tu
from plstm_graph.data.molecules import FEATURISERS
from plstm_graph.errors import ConfigError, DataError
from plstm_graph.gates import TRANSITIONS
from plstm_graph.models.graph import POOLINGS
from plstm_graph.models.vision import POSITIONS, READ_OUTS, SIZES
from plstm_graph.nn.grid import P_CODE
from plstm_graph.nn.gridded import GATE_INPUTS
from plstm_graph.nn.jumping import JUMPS
from plstm_graph.nn.norm import NORMS, OUTPUT_NORMS
from plstm_graph.nn.onehop import LOCALS
from plstm_graph.nn.stack import DIRECTIONS
from plstm_graph.ops.dispatch import BACKENDS
from plstm_graph.orient import CANONICAL, GIVEN, ORDERS, SEARCHES
from plstm_graph.tasks import LOSSES, METRICS, TASKS
from plstm_graph.train import train
from plstm_graph.train.inference.evaluation import PARTS

SMALL = ("MUTAG", "ENZYMES+attr", "ogbg-molfreesolv")


def test_every_row_of_the_table_is_consistent() -> None:
    assert len(DATASETS) == sum(len(family.SETS) for family in datasets.FAMILIES)  # no name twice, whatever the case
    assert len({name.casefold() for name in DATASETS}) == len(DATASETS)
    for name, info in DATASETS.items():
        assert info.name == name
        assert info.split in (SPLITS if TASKS[info.task].metrics else ("",))
        assert TASKS[info.task](metric=info.metric).metric == info.metric
        assert info.source
        assert info.licence
        assert info.url.startswith(("https://", "http://snap.stanford.edu/")) or info.licence == "generated"
        assert info.megabytes is None or info.megabytes > 0


def test_the_names_that_need_no_import_are_those_of_the_table() -> None:
    assert tuple(DATASETS) == names.DATA_SETS
    listed = {name.removesuffix(names.ATTRIBUTES) for name, info in DATASETS.items() if info.loader is tu.load}
    assert listed <= set(names.TU_COLLECTION)
    assert len({name.casefold() for name in names.TU_COLLECTION}) == len(names.TU_COLLECTION)


def test_the_values_of_options_are_those_that_the_package_knows() -> None:
    known = {
        "task": [name for name, kind in TASKS.items() if kind.tabular],
        "loss": LOSSES,
        "metric": METRICS,
        "split": SPLITS,
        "featuriser": FEATURISERS,
        "part": PARTS,
        "model.model": MODELS,
        "model.fingerprint": FINGERPRINTS,
        "model.directions": DIRECTIONS,
        "model.transition": TRANSITIONS,
        "model.output_norm": OUTPUT_NORMS,
        "model.local": LOCALS,
        "model.norm": NORMS,
        "model.head_norm": NORMS,
        "model.pooling": POOLINGS,
        "model.jk": JUMPS,
        "model.order": (*ORDERS, GIVEN, CANONICAL, *SEARCHES),
        "model.size": SIZES,
        "model.p_mode": ("P", P_CODE),
        "model.chirality": ("alternating", "left", "right"),
        "model.gate_inputs": GATE_INPUTS,
        "model.position": POSITIONS,
        "model.read_out": READ_OUTS,
        "model.backend": ("auto", *BACKENDS),
    }
    assert {field: set(values) for field, values in known.items()} == {
        field: set(values) for field, (_, values) in names.OPTIONS.items()
    }


def test_ogb_rows_are_those_of_its_own_table() -> None:
    folder = Path(str(find_spec("ogb").submodule_search_locations[0]))  # importing ogb may ask for newer releases
    master = pandas.read_csv(folder / "graphproppred" / "master.csv", index_col=0, keep_default_na=False)
    ours = {name: info for name, info in DATASETS.items() if name.startswith("ogbg-")}
    assert set(master.columns) - {"ogbg-ppa"} == set(ours)
    tasks = {"binary classification": "binary", "regression": "regression", "subtoken prediction": "tokens"}
    for name, info in ours.items():
        row = master[name]
        assert (info.url, info.task) == (row["url"], tasks[row["task type"]])
        assert info.metric == row["eval metric"].lower()
        assert str(info.options["targets"]) == row["num tasks"]


@pytest.mark.parametrize("name", SMALL)
def test_what_is_on_disk_trains_by_name_and_nothing_is_written_there(name: str, shared_data: Path, cache: Path) -> None:
    info = DATASETS[name]
    place = next(shared_data / place for place in info.places if (shared_data / place).exists())
    before = [(path, path.stat().st_mtime_ns) for path in sorted(place.rglob("*"))]
    assert info.present(shared_data)
    assert not info.present()
    config = small_config(data=name, root=str(shared_data), epochs=1, batch_size=256)
    found = train(config)
    assert found["data"] == name
    assert math.isfinite(found["test"][info.metric])
    assert sum(found["graphs"].values()) == info.graphs
    assert [(path, path.stat().st_mtime_ns) for path in sorted(place.rglob("*"))] == before


def test_a_missing_set_is_one_line_with_folder_and_url(tmp_path: Path) -> None:
    for name, info in DATASETS.items():
        if info.places:
            with pytest.raises(DataError) as error:
                load(name, root=tmp_path)
            text = str(error.value)
            assert text.startswith(f"{name} is not in {tmp_path}: there is no {tmp_path / info.places[0]}")
            assert text.endswith(f"leave root out to download it from {info.url}")


def test_circuits_load_but_do_not_train(shared_data: Path, tmp_path: Path) -> None:
    data = load("epfl", root=shared_data)
    assert (len(data.graphs), data.task.name) == (5, "none")
    assert len(load(f"aig:{shared_data / 'dag_EPFL_aig'}").graphs) == 5
    with pytest.raises(DataError, match="epfl has no labels to train on"):
        train(small_config(data="epfl", root=str(shared_data)))
    with pytest.raises(DataError, match=r"there are no .aig or .aig.gz files in"):
        load(f"aig:{tmp_path}")


@pytest.mark.parametrize("name", ["mutag", "NAV17"])
def test_case_of_a_name_does_not_matter(name: str, shared_data: Path) -> None:
    assert load(name, root=shared_data).name in ("MUTAG", "nav17")


def test_unknown_name(tmp_path: Path) -> None:
    message = r"unknown data set 'MUTAGG'; did you mean 'MUTAG'\? See 'plstm-graph datasets', or give a \.csv file"
    with pytest.raises(DataError, match=message):
        load("MUTAGG")
    with pytest.raises(DataError, match=r"unknown data set 'xyzzy'; choose one of nav17, .*\. See"):
        load("xyzzy")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder is a folder without NAME_A.txt"):
        load(str(tmp_path / "folder"), targets=["y"])
    with pytest.raises(DataError, match="no file"):
        load("nowhere/my.csv", targets=["y"])
    with pytest.raises(DataError, match="no labels to train on"):
        load("my.smi", targets=["y"])


def test_options_of_a_csv_are_refused_for_a_name() -> None:
    with pytest.raises(ConfigError, match="targets, task can only be chosen for a CSV"):
        load("nav17", targets=["y"], task="binary")
