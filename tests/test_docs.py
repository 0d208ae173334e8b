"""What the pages of docs/ show is what happens."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
WITH_CODE = sorted(path.name for path in DOCS.glob("*.md") if "```python" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_prints_what_it_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its pieces build on one another; what a piece prints stands in the block after it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    pieces = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    assert len(pieces) == text.count("```python")
    names: dict[str, object] = {}
    for code, printed in pieces:
        exec(code, names)
        assert capsys.readouterr().out == printed
