"""Training, evaluation, prediction and export on top of pytorch-lightning.

Its functions load on first use: importing this package is cheap and needs no extra.
"""

from typing import TYPE_CHECKING, Any

from plstm_graph.errors import PLSTMGraphError, missing_extra
from plstm_graph.io.lazy import loaded_on_use
from plstm_graph.train.config import TrainConfig

if TYPE_CHECKING:
    from plstm_graph.train.blending import blend
    from plstm_graph.train.inference.bulk import predict
    from plstm_graph.train.inference.evaluation import evaluate
    from plstm_graph.train.inference.explained import explain
    from plstm_graph.train.inference.molecules import embed
    from plstm_graph.train.inference.pictures import predict_pictures
    from plstm_graph.train.inference.portable import export
    from plstm_graph.train.run import train
    from plstm_graph.train.searching import search
    from plstm_graph.train.series import train_series

__all__ = [
    "TrainConfig",
    "blend",
    "embed",
    "evaluate",
    "explain",
    "export",
    "predict",
    "predict_pictures",
    "search",
    "train",
    "train_series",
]

_HOME = {
    "train": "run",
    "train_series": "series",
    "search": "searching",
    "evaluate": "inference.evaluation",
    "blend": "blending",
    "predict": "inference.bulk",
    "predict_pictures": "inference.pictures",
    "embed": "inference.molecules",
    "explain": "inference.explained",
    "export": "inference.portable",
}


_loaded, __dir__ = loaded_on_use(__name__, _HOME, globals())


def __getattr__(name: str) -> Any:
    try:
        return _loaded(name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {"pytorch_lightning", "rich"}:
            raise PLSTMGraphError(missing_extra(error.name, "train")) from error
        raise
