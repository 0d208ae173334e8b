"""A run, or several compared, as one HTML file that needs no other and no network: ``write_page``."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path

from plstm_graph import __version__
from plstm_graph.errors import PLSTMGraphError, missing_extra
from plstm_graph.io.files import expanded, write_text
from plstm_graph.train.page.compare import compare
from plstm_graph.train.page.entries import entries
from plstm_graph.train.page.parts import Page
from plstm_graph.train.page.single import single
from plstm_graph.train.results import PAGE

__all__ = ["write_page"]


def write_page(folders: Sequence[str | PathLike[str]], out: str | PathLike[str] | None = None) -> Path:
    """Writes what a run or a series found, or how several compare, as one HTML page.

    Args:
        folders: of runs, finished or not, and of series, each of which is one thing with all its runs.
        out: file to write; ``report.html`` in the folder if it is one, in the current folder for several.

    Returns:
        The file.

    Raises:
        ConfigError: a folder holds no run; runs that cannot be compared.
        DataError: a file of a run is damaged.
        OSError: ``out`` cannot be written.
    """
    given = list(dict.fromkeys(map(expanded, folders)))
    found = entries(given)
    path = Path(out) if out is not None else (given[0] if len(given) == 1 else Path()) / PAGE
    records = [run for entry in found for run in entry.runs]
    page = single(records[0]) if len(records) == 1 and not found[0].failed else compare(found)
    write_text(path, _html(page))
    return path


def _html(page: Page) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as error:
        raise PLSTMGraphError(missing_extra("jinja2", "train")) from error
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    source = (files(__package__) / "page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(page=page, version=__version__, policy=policy(source))


def policy(page: str) -> str:
    """Content-Security-Policy that allows what the page brings, its one style sheet and pictures, and nothing else."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
