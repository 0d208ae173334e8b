"""Most trainings here leave empty pictures: laying them out takes longer than the training."""

from typing import Any

import pytest

from plstm_graph.io.files import atomic_write

LOOKED_AT = {"test_gallery", "test_train_page", "test_train_run", "test_train_images", "test_train_explained"}


@pytest.fixture(autouse=True)
def empty_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(figure: Any, out: Any) -> None:
        with atomic_write(out) as temp:
            temp.touch()

    if request.module.__name__ not in LOOKED_AT:
        monkeypatch.setattr("plstm_graph.draw.plots._save", save)
