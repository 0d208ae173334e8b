"""scikit-learn's handwritten digits: 1,797 small images that need no download."""

from pathlib import Path

import torch

from plstm_graph.data.dataset import Dataset, DatasetInfo
from plstm_graph.data.examples import Arrays
from plstm_graph.data.features import FeatureSpec
from plstm_graph.errors import DataError, missing_extra
from plstm_graph.tasks import Multiclass


def load(info: DatasetInfo, root: str | Path | None = None) -> Dataset:
    """Images [1797, 1, 8, 8] from 0 to 1, and the digit of each."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise DataError(missing_extra("scikit-learn", "train")) from error
    found = load_digits()
    images = torch.from_numpy(found.images).float().unsqueeze(1) / 16
    examples = Arrays(images, torch.from_numpy(found.target).long())
    task = Multiclass(("digit",), classes=10)
    return Dataset(info.name, examples, task, FeatureSpec(image=(1, 8, 8)), default_split=info.split)


SETS = [
    DatasetInfo(
        "digits",
        graphs=1797,
        task="multiclass",
        metric="accuracy",
        split="random",
        licence="CC BY 4.0",
        source="Alpaydin and Kaynak 1998, as scikit-learn has them",
        url="https://doi.org/10.24432/C50P49",
        loader=load,
    )
]
