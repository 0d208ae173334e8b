"""What names there are, as plain text: a command line checks and completes them before it imports anything heavy."""

import os
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from plstm_graph.config.architectures import architecture
from plstm_graph.config.models import FINGERPRINTS
from plstm_graph.errors import ConfigError, DataError, unknown
from plstm_graph.io.files import expanded, stem

_DATA_SETS = """
nav17 ogbg-molhiv ogbg-molpcba ogbg-molbace ogbg-molbbbp ogbg-molclintox ogbg-molmuv ogbg-molsider ogbg-moltox21
ogbg-moltoxcast ogbg-molesol ogbg-molfreesolv ogbg-mollipo ogbg-molchembl ogbg-code2 peptides-func peptides-struct
ZINC esol freesolv lipo pcba muv hiv bace bbbp tox21 toxcast sider clintox MUTAG PTC_FM ENZYMES ENZYMES+attr PROTEINS
PROTEINS+attr AIDS AIDS+attr NCI1 Mutagenicity IMDB-BINARY dvae nasbench201 nasbench201-1 nasbench201-5
nasbench201-10 nasbench201-50 circuits circuits-sin circuits-max epfl carry carry-dag transfer-line transfer-ring
transfer-crossed transfer-tree transfer-dag transfer-line-5000 transfer-ring-5000 transfer-crossed-5000
transfer-tree-5000 transfer-dag-5000 swap-line swap-ring swap-crossed neighborsmatch-2 neighborsmatch-3
neighborsmatch-4 neighborsmatch-5 neighborsmatch-6 neighborsmatch-7 neighborsmatch-8 echo-sssp echo-ecc echo-diam
arrow arrow-384 digits cifar10
"""

_TU_COLLECTION = """
AIDS BZR BZR_MD COX2 COX2_MD DHFR DHFR_MD ER_MD FRANKENSTEIN Mutagenicity MUTAG NCI1 NCI109 PTC_FM PTC_FR PTC_MM
PTC_MR alchemy_full aspirin benzene ethanol malonaldehyde naphthalene QM9 salicylic_acid toluene uracil ZINC_full
ZINC_test ZINC_train ZINC_val Tox21_AhR_training Tox21_AhR_testing Tox21_AhR_evaluation Tox21_AR_training
Tox21_AR_testing Tox21_AR_evaluation Tox21_AR-LBD_training Tox21_AR-LBD_testing Tox21_AR-LBD_evaluation
Tox21_ARE_training Tox21_ARE_testing Tox21_ARE_evaluation Tox21_aromatase_training Tox21_aromatase_testing
Tox21_aromatase_evaluation Tox21_ATAD5_training Tox21_ATAD5_testing Tox21_ATAD5_evaluation Tox21_ER_training
Tox21_ER_testing Tox21_ER_evaluation Tox21_ER-LBD_training Tox21_ER-LBD_testing Tox21_ER-LBD_evaluation
Tox21_HSE_training Tox21_HSE_testing Tox21_HSE_evaluation Tox21_MMP_training Tox21_MMP_testing Tox21_MMP_evaluation
Tox21_p53_training Tox21_p53_testing Tox21_p53_evaluation Tox21_PPAR-gamma_training Tox21_PPAR-gamma_testing
Tox21_PPAR-gamma_evaluation MCF-7 MCF-7H MOLT-4 MOLT-4H NCI-H23 NCI-H23H OVCAR-8 OVCAR-8H P388 P388H PC-3 PC-3H SF-295
SF-295H SN12C SN12CH SW-620 SW-620H UACC257 UACC257H Yeast YeastH DD ENZYMES KKI OHSU Peking_1 PROTEINS PROTEINS_full
COIL-DEL COIL-RAG Cuneiform Fingerprint FIRSTMM_DB Letter-high Letter-low Letter-med MSRC_9 MSRC_21 MSRC_21C COLLAB
dblp_ct1 dblp_ct2 DBLP_v1 deezer_ego_nets facebook_ct1 facebook_ct2 github_stargazers highschool_ct1 highschool_ct2
IMDB-BINARY IMDB-MULTI infectious_ct1 infectious_ct2 mit_ct1 mit_ct2 REDDIT-BINARY REDDIT-MULTI-5K REDDIT-MULTI-12K
reddit_threads tumblr_ct1 tumblr_ct2 twitch_egos TWITTER-Real-Graph-Partial COLORS-3 SYNTHETIC SYNTHETICnew Synthie
TRIANGLES
"""

DATA_SETS = tuple(_DATA_SETS.split())
"""Keys of ``plstm_graph.data.DATASETS``."""

_MOLECULES = """
nav17 esol freesolv lipo pcba muv hiv bace bbbp tox21 toxcast sider clintox
"""

MOLECULES = tuple(name for name in DATA_SETS if name.startswith("ogbg-mol") or name in _MOLECULES.split())
"""Those of them that are molecules with SMILES."""

TU_COLLECTION = tuple(_TU_COLLECTION.split())
"""The TU Dortmund collection (Morris et al. 2020) as it was in 2026; any other set of it is ``tu:NAME``."""

AIG_PREFIX, TU_PREFIX, ATTRIBUTES = "aig:", "tu:", "+attr"
"""Before a folder of circuits; before a TU set that is not listed; behind one whose attributes are wanted, too."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""How names of files with pictures end, in any case."""
SIDE = 224
"""Of the images that are made of pictures, in pixels, unless told otherwise."""
_FOLDER = re.compile(r"(?:aig|images(?:-([1-9][0-9]*))?):")

DESCRIPTORS = ("rdkit2d", *FINGERPRINTS, "morgan-counts")
"""What rdkit works out of a molecule: its 2D descriptors; fingerprints of 2,048 bits, Morgan's of radius 2 also as
counts. Anything else that ``--descriptors`` takes is a file."""

OPTIONS = {
    "task": ("task", ("regression", "ranking", "binary", "multiclass")),
    "metric": ("metric", ("r2", "rmse", "mae", "pearson", "kendall", "rocauc", "ap", "accuracy", "f1")),
    "loss": ("loss", ("mse", "mae", "huber")),
    "featuriser": ("featuriser", ("cip-molecule", "ogb-molecule")),
    "split": (
        "split",
        ("official", "random", "scaffold", "folds", "scaffold-folds", "column", "group", "group-folds", "time"),
    ),
    "part": ("part of the split", ("train", "valid", "test", "all")),
    "model.model": (
        "model",
        (
            "plstm",
            "gine",
            "gcn",
            "gin",
            "gin-virtual",
            "gat",
            "gatedgcn",
            "gatedgcn-edges",
            "gps",
            "dmpnn",
            "lstm-gnn",
            "adgn",
            "dagnn",
            "dvae",
            "dag-transformer",
            "flowerformer",
            "fingerprint",
            "plstm-vision",
            "vit",
            "cnn",
            "efficientnet",
        ),
    ),
    "model.fingerprint": ("fingerprint", FINGERPRINTS),
    "model.directions": ("directions", ("both", "along", "against", "alternating")),
    "model.transition": ("transition", ("tanh", "saturating")),
    "model.output_norm": ("output norm", ("rms", "soft", "log", "none")),
    "model.local": ("local branch", ("none", "gine", "dir-gine", "gcn", "gat", "gatedgcn", "gatedgcn-edges", "dmpnn")),
    "model.norm": ("norm", ("batch", "rms", "layer", "none")),
    "model.head_norm": ("norm", ("none", "batch", "rms", "layer")),
    "model.pooling": ("pooling", ("mean", "sum", "max", "attention", "sources", "sinks")),
    "model.jk": ("jk", ("last", "cat")),
    "model.order": (
        "order",
        (
            "index",
            "bfs",
            "dfs",
            "degree",
            "random",
            "given",
            "canonical",
            "canonical-bfs",
            "canonical-dfs",
            "canonical-center",
        ),
    ),
    "model.size": ("size", ("tiny", "small", "base")),
    "model.chirality": ("chirality", ("alternating", "left", "right")),
    "model.p_mode": ("P mode", ("P", "P-code")),
    "model.gate_inputs": ("gate inputs", ("all", "slices", "none")),
    "model.position": ("position", ("learned", "none")),
    "model.read_out": ("read-out", ("corners", "mean")),
    "model.backend": (
        "backend",
        ("auto", "reference", "scatter", "scatter_recompute", "chunkwise", "dense", "numba", "triton"),
    ),
}
"""By flat name of a field of the config (``part`` is of an evaluation): what errors call it, and its values."""


def check_options(values: Mapping[str, Any]) -> None:
    """Raise ConfigError unless all values, by flat name of their field, are among :data:`OPTIONS`.

    To models, tasks and metrics other packages may add.
    """
    for field, (kind, names) in OPTIONS.items():
        value = values.get(field)
        if field == "model.model" and value is not None:
            architecture(value)
            continue
        for name in value.split("+") if field == "model.pooling" and value else [value]:  # poolings may be joined
            if name is not None and name not in names and not _from_outside(field, name):
                raise ConfigError(unknown(kind, name, names))


def _from_outside(field: str, name: str) -> bool:
    """Whether another package brings a task of that name, or may bring such a metric: its task decides."""
    points = entry_points(group="plstm_graph.tasks")
    return bool(points.select(name=name)) if field == "task" else field == "metric" and bool(points)


def check_data_set(name: str, root: str | Path | None = None) -> None:
    """Raise DataError unless ``name`` may lead to a data set: a known name, or a file or folder that is there.

    Args:
        name: as for ``plstm_graph.data.load``.
        root: folder with public data.
    """
    plain = name.removesuffix(ATTRIBUTES)
    if name and name == folder_prefix(name):  # an empty variable of a shell would stand for the folder one is in
        raise DataError(f"{name} names no folder; write {name}FOLDER, or {name}. for the folder you are in")
    known = {each.casefold() for each in (*DATA_SETS, *TU_COLLECTION)}
    if {name.casefold(), plain.casefold()} & known or name.startswith((AIG_PREFIX, TU_PREFIX)):
        return
    if prefix := folder_prefix(name):
        if not (folder := expanded(name.removeprefix(prefix))).is_dir():
            raise DataError(f"there is no folder {folder}; {prefix} stands before one with a folder a class")
        return
    if expanded(plain).exists() or (root is not None and tu_folder(plain, root)):
        return
    if expanded(plain).suffix:
        raise DataError(f"there is no file {name}")
    if name.startswith("images-") and ":" in name:
        raise DataError(
            f"unknown data set {name!r}; pictures are images:FOLDER, or images-64:FOLDER for images of 64 pixels a side"
        )
    text = unknown("data set", name, DATA_SETS)
    end = "" if text.endswith("?") else "."
    more = f"or give a .csv file, images:FOLDER for pictures, or {TU_PREFIX}NAME for any set of the TU collection"
    raise DataError(f"{text}{end} See 'plstm-graph datasets', {more}")


def of_molecules(name: str) -> bool:
    """Tell whether data are molecules by their name alone: a data set of them, or a file other than a prepared one."""
    known = name.casefold() in {each.casefold() for each in MOLECULES}
    return known or (
        Path(name).suffix not in ("", ".pt") and not name.startswith(TU_PREFIX) and not folder_prefix(name)
    )


def folder_prefix(name: str) -> str:
    """What stands before a folder and says what is in it: ``"aig:"``, ``"images:"``, ``"images-64:"``; or nothing."""
    found = _FOLDER.match(name)
    return found[0] if found else ""


def of_pictures(name: str) -> bool:
    """Tell whether a value of ``--data`` is a folder of pictures."""
    return folder_prefix(name) not in ("", AIG_PREFIX)


def folder_of(place: str | os.PathLike[str]) -> Path:
    """The folder that a value of ``--data`` names after its prefix; other places as they are."""
    return Path(str(place).removeprefix(folder_prefix(str(place))) if not os.path.exists(place) else place)


def asked_side(name: str) -> int | None:
    """Pixels that ``images-64:FOLDER`` asks for; None where nothing is said."""
    found = _FOLDER.match(name)
    return int(found[1]) if found and found[1] else None


def placed(name: str) -> str:
    """A value of ``--data`` that means the same in every folder: names as they are, paths of what is there absolute."""
    prefix = folder_prefix(name)
    attributes = ATTRIBUTES if name.endswith(ATTRIBUTES) and not of_pictures(name) else ""
    path = expanded(name.removeprefix(prefix).removesuffix(attributes))
    known = {each.casefold() for each in (*DATA_SETS, *TU_COLLECTION)}
    if name.casefold() in known or str(path).casefold() in known or not path.exists():
        return name
    return f"{prefix}{os.path.abspath(path)}{attributes}"


def called(name: str) -> str:
    """What a run on such data is called: a name, or that of the file or folder without more."""
    prefix = folder_prefix(name)
    return os.path.basename(os.path.abspath(expanded(name.removeprefix(prefix)))) if prefix else stem(name)


def tu_folder(name: str, root: str | Path) -> Path | None:
    """Where below ``root`` the raw files of a TU set are."""
    places = (expanded(root) / place for place in (f"TUDataset/{name}/raw", f"{name}/raw"))
    return next((place for place in places if place.is_dir()), None)
