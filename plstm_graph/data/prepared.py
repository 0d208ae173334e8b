"""Prepared data: a data set as one small file of tensors, to train where neither its source, nor rdkit, nor ogb is."""

import hashlib
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from plstm_graph.config.models import ModelConfig
from plstm_graph.data.dataset import GraphDataset
from plstm_graph.data.descriptors import Descriptors, check_kinds
from plstm_graph.data.encodings import add_encodings
from plstm_graph.data.features import FeatureSpec
from plstm_graph.data.molecules import Rejected
from plstm_graph.data.smiles import scaffold
from plstm_graph.data.source import narrow, read_bytes
from plstm_graph.data.splits import Split, group_split
from plstm_graph.data.stacked import NODES, Joined, StackedGraphs, values
from plstm_graph.errors import DataError
from plstm_graph.io.files import PACKED, atomic_write, expanded, free_memory
from plstm_graph.tasks import restore

FORMAT = 3  # 1: nothing tells repeats of a molecule; 2: the task in several fields
SUFFIX = ".pt"


@dataclass
class PreparedDataset(GraphDataset):
    """A data set that brings its canonical ranks and the splits that only its source could make.

    Attributes:
        scaffolds: number of each molecule's scaffold, in order of appearance; None where there are none.
        numbers: of each graph's molecule, as :meth:`molecules` gives them; None where there are none.
        descriptors: of all graphs by kind, as the file has them.
        digest: SHA-256 of the content.
    """

    scaffolds: list[int] | None = None
    numbers: list[int] | None = None
    descriptors: dict[str, dict[str, Any]] = field(default_factory=dict)
    digest: str = ""

    def describe(self, kind: str, wanted: Sequence[str] = ()) -> Descriptors:
        """Those of the file; others need rdkit."""
        if kind in self.descriptors:
            stored = self.descriptors[kind]
            return Descriptors(tuple(stored.get("names", ())), unpacked(stored))
        try:
            return super().describe(kind, wanted)
        except DataError as error:
            raise DataError(
                f"{self.name} was prepared without descriptors {kind!r} ({error}); prepare it with --descriptors {kind}"
            ) from error

    def molecules(self) -> list[int] | None:
        """As of the source; rdkit is not needed."""
        return self.numbers

    def split(self, kind: str | None = None, seed: int = 0, fold: int = 0, *, group_repeats: bool = True) -> Split:
        """As of the source."""
        kind = kind or self.default_split
        if kind == "scaffold" and self.scaffolds is not None and fold == 0:
            return group_split(self.scaffolds, seed=seed)
        return super().split(kind, seed, fold, group_repeats=group_repeats)


def write_prepared(
    path: str | PathLike[str],
    dataset: GraphDataset,
    *,
    smiles: bool = True,
    descriptors: Sequence[str] = (),
) -> str:
    """Writes a data set with all that training needs; :func:`read_prepared` and ``load`` read it.

    Args:
        path: of the file, which should end in ``.pt``.
        dataset: what to prepare.
        smiles: keep the molecules as text; a model trained without them cannot predict for SMILES.
        descriptors: kinds of descriptors to keep, of which trainings choose; see :func:`load`.

    Returns:
        SHA-256 of the content: equal content has an equal one, wherever it was written.

    Raises:
        DataError: the graphs hold something other than tensors and text, or do not hold the same.
        OSError: the file cannot be written.
    """
    check_kinds(descriptors)
    graphs = add_encodings(dataset.graphs, ModelConfig(rwse=0))  # in canonical order; others need no source
    own = replace(dataset.features, descriptors=0, descriptor_names=())  # they are kept by kind, not graph by graph
    content: dict[str, Any] = {
        "name": dataset.name,
        "task": dataset.task.plain(),
        "features": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(own).items()},
        "rejected": [list(row) for row in dataset.rejected],
        "default_split": dataset.default_split,
        "parts": {name: narrow(torch.tensor(part)) for name, part in (dataset.parts or {}).items()},
        "featuriser": dataset.featuriser if smiles else None,
        "scaffolds": _scaffolds(graphs),
        "molecules": None if (found := dataset.molecules()) is None else narrow(torch.tensor(found)),
        "graphs": len(graphs),
        "attributes": _attributes(graphs, ("descriptors",) if smiles else ("descriptors", "smiles")),
        "descriptors": {
            kind: packed(found.rows) | {"names": list(found.names)}
            for kind, found in ((kind, dataset.describe(kind)) for kind in descriptors)
        },
    }
    digest = _digest(content)
    with atomic_write(path) as temp, temp.open("wb") as stream:
        torch.save({"plstm_graph_data": FORMAT, "digest": digest, **content}, stream)
    return digest


def read_prepared(path: str | PathLike[str]) -> PreparedDataset:
    """The data set of a file, mapped into memory and unpacked; no code stored in it is run.

    Raises:
        DataError: no such file, not one of :func:`write_prepared`, of another format, or damaged.
    """
    where = expanded(path)
    content = _content(where)
    stored = content["attributes"]
    joined = {key: _joined(values) for key, values in stored.items()}
    if NODES not in joined or any(len(part.counts) != content["graphs"] for part in joined.values()):
        raise DataError(f"{where} must hold x and the same number of graphs for each attribute; prepare it again")
    scaffolds, numbers = content["scaffolds"], content["molecules"]
    return PreparedDataset(
        content["name"],
        StackedGraphs(joined),
        restore(content["task"]),
        FeatureSpec.restored(content["features"]),
        [Rejected(*row) for row in content["rejected"]],
        content["default_split"],
        {name: part.tolist() for name, part in content["parts"].items()} or None,
        featuriser=content["featuriser"],
        scaffolds=None if scaffolds is None else scaffolds.tolist(),
        numbers=None if numbers is None else numbers.tolist(),
        descriptors=content.get("descriptors", {}),
        digest=content["digest"],
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        packed = path.suffix.lower() == PACKED
        stored = BytesIO(read_bytes(path)) if packed else path
        with zipfile.ZipFile(stored) as archive:  # what inflates on reading is not ours
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise zipfile.BadZipFile("it is compressed inside")
        if isinstance(stored, BytesIO):
            stored.seek(0)
        content = torch.load(stored, weights_only=True, mmap=not packed)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; give the file that `plstm-graph prepare` wrote") from error
    except Exception as error:  # torch raises whatever its reader met
        raise DataError(f"{path} is truncated, or not data prepared by plstm-graph ({type(error).__name__})") from error
    if not isinstance(content, dict) or "plstm_graph_data" not in content:
        raise DataError(f"{path} was not written by `plstm-graph prepare`; is it a checkpoint?")
    found = content.pop("plstm_graph_data")
    if found != FORMAT:
        raise DataError(f"{path} has data format {found!r}, this version reads {FORMAT}; prepare it again")
    needed = _bytes(content)
    if needed > free_memory():
        raise DataError(f"{path} unfolds to {needed / 1e9:.1f} GB, more than this machine has free memory for")
    if _digest({key: value for key, value in content.items() if key != "digest"}) != content.get("digest"):
        raise DataError(f"the content of {path} does not match its digest; it is damaged: copy or prepare it again")
    return content


def _bytes(content: Any) -> int:
    """Bytes of all tensors once they are unfolded: a small file may hold views that repeat one number."""
    if isinstance(content, dict):
        codes, table = content.get("codes"), content.get("table")
        own = 0
        if isinstance(codes, Tensor) and isinstance(table, Tensor) and len(table):
            own = codes.numel() * (table.numel() // len(table)) * table.element_size()
        return own + sum(_bytes(value) for value in content.values())
    return content.numel() * content.element_size() if isinstance(content, Tensor) else 0


# ---------------------------------------------------------------------- attributes


def _attributes(graphs: Sequence[Data], skip: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every attribute of all graphs as a few tensors."""
    if not graphs:
        raise DataError("there are no graphs to prepare")
    keys = [key for key in graphs[0].to_dict() if key not in skip]
    found = {}
    for number, graph in enumerate(graphs):
        odd = set(keys) ^ (set(graph.to_dict()) - set(skip))
        if odd:
            names = ", ".join(sorted(odd))
            raise DataError(f"all graphs must have the same attributes, but graphs 0 and {number} differ in {names}")
    for key in keys:
        values = [graph[key] for graph in graphs]
        kinds = {type(value) for value in values}
        if kinds == {str}:
            found[key] = _text(values)
        elif kinds == {Tensor}:
            found[key] = _union(values, graphs[0].__cat_dim__(key, values[0]))
        else:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise DataError(f"attribute {key!r} cannot be prepared: it must be a tensor or text, not {names}")
    return found


def _union(values: list[Tensor], dim: int) -> dict[str, Any]:
    rows = [value.movedim(dim, 0) for value in values]
    if len({(value.dtype, value.shape[1:]) for value in rows}) > 1:
        raise DataError("tensors of one attribute must have one type, and one shape but for its number of rows")
    counts = narrow(torch.tensor([len(value) for value in rows]))
    return {"dim": dim, "counts": counts, **encode(torch.cat(rows))}


def _text(values: list[str]) -> dict[str, Any]:
    coded = [value.encode() for value in values]
    letters = torch.frombuffer(bytearray(b"".join(coded) or b" "), dtype=torch.uint8)
    return {"counts": narrow(torch.tensor([len(value) for value in coded])), "letters": letters}


def _joined(stored: dict[str, Any]) -> Joined:
    """The values of one attribute of all graphs."""
    counts = stored["counts"].long()
    if "letters" in stored:
        letters, ends = bytes(stored["letters"].numpy()), [0, *counts.cumsum(0).tolist()]
        return Joined([letters[start:end].decode() for start, end in pairwise(ends)], torch.ones_like(counts))
    return Joined(decode(stored).movedim(0, stored["dim"]), counts, stored["dim"])


def encode(rows: Tensor) -> dict[str, Any]:
    """``rows`` [n, ...] without loss as its different rows and which of them stands where, if that takes less room.

    Molecules repeat themselves: 1.05 million atoms of ogbg-molhiv have a few hundred kinds of features.
    """
    flat = rows.contiguous().view(len(rows), math.prod(rows.shape[1:]))
    dtype = str(rows.dtype).removeprefix("torch.")
    plain = narrow(flat)
    if flat.numel():
        # Compared byte by byte: -0.0 stays -0.0, and a NaN is equal to itself.
        raw = flat.view(torch.uint8).numpy()
        found, code = np.unique(raw.view(f"V{raw.shape[1]}")[:, 0], return_inverse=True)
        codes = narrow(torch.from_numpy(code))
        table = narrow(torch.from_numpy(found.view("u1").reshape(len(found), -1).copy()).view(rows.dtype))
        if codes.nbytes + table.nbytes < plain.nbytes:
            return {"dtype": dtype, "shape": list(rows.shape[1:]), "table": table, "codes": codes}
    return {"dtype": dtype, "shape": list(rows.shape[1:]), "table": plain, "codes": None}


def decode(stored: dict[str, Any]) -> Tensor:
    """The inverse of :func:`encode`."""
    table = stored["table"].to(getattr(torch, stored["dtype"]))
    rows = table if stored["codes"] is None else table.index_select(0, stored["codes"].long())
    return rows.view(len(rows), *stored["shape"])


def packed(rows: Tensor) -> dict[str, Any]:
    """``rows`` [n, columns] without loss: what is not zero, where that takes less room. A fingerprint has 2,048 columns
    and some 50 that are not."""
    row, column = _bits(rows).nonzero(as_tuple=True)
    values = rows[row, column]
    whole = values.long()
    values = whole if torch.equal(_bits(whole.float()), _bits(values)) and values.numel() else values
    few = {
        "columns": rows.size(1),
        "counts": narrow(torch.bincount(row, minlength=len(rows))),
        "column": narrow(column),
        "values": narrow(values),
    }
    size = sum(part.nbytes for part in few.values() if isinstance(part, Tensor))
    return few if size < rows.nbytes else {"rows": rows}


def _bits(values: Tensor) -> Tensor:
    """By which -0.0 is not zero, and a NaN is equal to itself."""
    return values.contiguous().view(torch.int32)


def unpacked(stored: dict[str, Any]) -> Tensor:
    """The inverse of :func:`packed`, float32."""
    if "rows" in stored:
        return stored["rows"].clone()  # not of the file that is mapped into memory
    counts = stored["counts"].long()
    found = torch.zeros(len(counts), stored["columns"])
    row = torch.repeat_interleave(torch.arange(len(counts)), counts)
    found[row, stored["column"].long()] = stored["values"].float()
    return found


# ---------------------------------------------------------------------- splits, digest


def _scaffolds(graphs: Sequence[Data]) -> Tensor | None:
    """Number of each molecule's scaffold; None where not all graphs are molecules that rdkit can read."""
    if None in (texts := values(graphs, "smiles")):
        return None
    numbers: dict[str, int] = {}
    try:
        found = [numbers.setdefault(scaffold(text), len(numbers)) for text in texts]
    except DataError:
        return None
    return narrow(torch.tensor(found))


def _digest(content: Any) -> str:
    """SHA-256 of nested plain values and tensors."""
    found = hashlib.sha256()

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            found.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            return [str(value.dtype), list(value.shape)]
        if isinstance(value, dict):
            return {key: plain(value[key]) for key in sorted(value)}
        return value

    found.update(json.dumps(plain(content)).encode())
    return found.hexdigest()
