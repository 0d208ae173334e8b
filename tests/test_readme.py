"""What the README and docstrings show is what happens."""

import doctest
import re
from pathlib import Path

import pytest
import torch

import plstm_graph
from plstm_graph import dag, transforms
from plstm_graph.models import padded
from plstm_graph.nn import conv, grid, stack

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_code_of_the_readme_prints_what_it_says(capsys):
    """Its pieces build on one another, as a reader would paste them."""
    pieces = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(pieces) > 1
    names: dict[str, object] = {}
    for code in pieces:
        exec(code, names)
        assert capsys.readouterr().out.strip() == re.search(r"print\(.*\)  # (.*)", code)[1]


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(links) > 5
    assert [link for link in links if not (README.parent / link).exists()] == []


@pytest.mark.parametrize("module", [conv, grid, stack, dag, padded, transforms])
def test_docstring_examples(module):
    names = {name: getattr(plstm_graph, name) for name in plstm_graph.__all__} | {"torch": torch}
    found = doctest.testmod(module, extraglobs=names)
    assert found.attempted > 2, module
    assert found.failed == 0
