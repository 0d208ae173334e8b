"""Imports are spared the search for garbage, and what is no import is not."""

import gc
import sys
from types import ModuleType

import pytest

from plstm_graph.io import collecting
from plstm_graph.io.collecting import uncollected


@pytest.mark.parametrize(("many", "stays"), [(1, True), (2, False)])
def test_what_is_imported_stays(monkeypatch, many, stays):
    monkeypatch.setattr(collecting, "MANY", many)
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
            monkeypatch.setitem(sys.modules, "plstm_graph_new", ModuleType("plstm_graph_new"))
        assert gc.isenabled()
        assert (gc.get_freeze_count() > before) == stays
    finally:
        gc.unfreeze()


def test_after_an_error_garbage_is_looked_for():
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
