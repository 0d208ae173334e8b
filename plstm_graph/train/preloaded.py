"""Imported by the server that trainings are forked from, see :mod:`plstm_graph.train.forking`: all that they need."""

import atexit
import os

from plstm_graph.io.lazy import LOOPS, UNUSED_IN_TRAINING, quick_start
from plstm_graph.train.forking import PARENT

NO_MKL = "USE_MKL=OFF"

with quick_start([name for name in UNUSED_IN_TRAINING if name != LOOPS]):
    import torch

    # PyTorch Geometric looks for these words; the whole text has versions that CUDA is asked, and thereby started, for
    whole, torch.__config__.show = torch.__config__.show, lambda: "" if torch.backends.mkl.is_available() else NO_MKL
    import sklearn.metrics  # noqa: F401

    import plstm_graph.draw.answers
    import plstm_graph.train.series  # noqa: F401

    torch.__config__.show = whole

if os.environ.get(PARENT) == str(os.getppid()):  # it ends with its parent, and to take its modules apart takes seconds
    atexit.register(os._exit, 0)
