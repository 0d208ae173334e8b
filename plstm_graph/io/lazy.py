"""What loads on first use: names of a package, and modules that other packages import before anyone needs them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from plstm_graph.io.collecting import uncollected

COMPILER, LOOPS = "torch._dynamo", "numba"
UNUSED = (COMPILER, "torch._meta_registrations", "torch_geometric.datasets", LOOPS, "scipy.linalg.cython_blas")
"""What torch, PyTorch Geometric and numba import and a prediction for few molecules does without: torch's compiler,
shapes of tensors that hold nothing, data sets, loops. They take longer than all that it needs."""

UNUSED_IN_TRAINING = ("scipy.signal", LOOPS)
"""What Lightning (by way of torchmetrics) and PyTorch Geometric import and a training does without, a seventh of all.
Loops load where they run, on a CPU."""
KNOWN = {"scipy.signal": {"hamming": None}}
"""What modules are asked for as they are imported, which does not make them load: torchmetrics adds this name if it is
missing."""


def loaded_on_use(
    package: str, homes: Mapping[str, str], names: Mapping[str, Any]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its name.
        homes: for each name the module below the package where it is.
        names: what the package has already, its ``globals()``.

    Example::

        __getattr__, __dir__ = loaded_on_use(__name__, {"PLSTM": "stack"}, globals())
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted({*names, *homes})


@contextmanager
def quick_start(unused: Iterable[str] | None = None) -> Iterator[None]:
    """Around the imports of a process of our own. Modules in ``unused`` load when they are used, if ever.

    Args:
        unused: as :data:`UNUSED_IN_TRAINING`; by default :data:`UNUSED`, for one that predicts and compiles nothing.
    """
    for name in UNUSED if unused is None else unused:
        sys.modules.setdefault(name, _PutOff(name))
    with uncollected():
        yield


def is_put_off(name: str) -> bool:
    """Tell whether a module is put off by :func:`quick_start`, and nobody has asked for it."""
    return isinstance(sys.modules.get(name), _PutOff)


class _PutOff(ModuleType):
    """In place of a module until one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name in (known := KNOWN.get(self.__name__, {})):
            return known[name]
        if name.startswith("__") and name != "__path__":  # whoever looks through all modules has no use for this one
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)
