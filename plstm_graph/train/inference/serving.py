"""A trained model behind HTTP: one endpoint for molecules, one that says what the model is."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from plstm_graph import __version__
from plstm_graph.data.descriptors import Lookup
from plstm_graph.errors import PLSTMGraphError, missing_extra, said
from plstm_graph.io.json_csv import read_json
from plstm_graph.train.checkpoint import Meta
from plstm_graph.train.inference.molecules import UNLIKE, Predictions, answers
from plstm_graph.train.inference.restored import restore_for_molecules
from plstm_graph.train.results import SCORES

try:
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, field_validator
except ModuleNotFoundError as error:
    raise PLSTMGraphError(missing_extra("fastapi", "serve")) from error

MOST_MOLECULES, MOST_BYTES = 1000, 2**20
"""Of a request, unless told otherwise; more is refused with status 413."""
TOGETHER = 4096
"""Molecules from which on a call takes no further waiting request."""
CARD = ("graphs", "rejected", "metric", "valid", "test", "test_interval", "by_target", "parameters", "date")
"""What the model card of a run says beyond its checkpoint."""


_REASON = ("type", "loc", "msg")
"""What is said of a question that is none."""


class Molecules(BaseModel):
    """Body of a request."""

    smiles: list[str]

    model_config = {"json_schema_extra": {"examples": [{"smiles": ["CCO", "c1ccccc1"]}]}}

    @field_validator("smiles")
    @classmethod
    def _of_whole_characters(cls, smiles: list[str]) -> list[str]:
        """JSON can say half a character, which no answer can: that is a ValueError."""
        for text in smiles:
            text.encode()
        return smiles


class Pending(NamedTuple):
    """A request that is not answered yet."""

    smiles: list[str]
    answer: "asyncio.Future[list[dict[str, Any]]]"


class Batcher:
    """Requests that come while the model works are answered by one call of it.

    Args:
        answer: what predicts for molecules; it runs in a thread, one call at a time.
    """

    def __init__(self, answer: Callable[[Sequence[str]], Predictions]) -> None:
        self._answer = answer
        self._queue: asyncio.Queue[Pending] = asyncio.Queue()

    async def ask(self, smiles: list[str]) -> list[dict[str, Any]]:
        """A row for each molecule, in order; see :func:`as_rows`."""
        pending = Pending(smiles, asyncio.get_running_loop().create_future())
        await self._queue.put(pending)
        return await pending.answer

    async def work(self) -> None:
        """Answer until cancelled."""
        while True:
            group = [await self._queue.get()]
            while not self._queue.empty() and sum(len(each.smiles) for each in group) < TOGETHER:
                group.append(self._queue.get_nowait())
            await self._tell(group)

    async def _tell(self, group: Sequence[Pending]) -> None:
        try:
            found = await asyncio.to_thread(self._answer, [text for each in group for text in each.smiles])
        except Exception as error:
            if len(group) > 1:  # one of them is at fault, and the others are not to suffer
                for each in group:
                    await self._tell([each])
            elif not group[0].answer.done():
                group[0].answer.set_exception(error)
            return
        rows = iter(as_rows(found))
        for each in group:
            mine = [next(rows) for _ in each.smiles]
            if not each.answer.done():  # whoever asked may be gone
                each.answer.set_result(mine)


def as_rows(found: Predictions) -> list[dict[str, Any]]:
    """Predictions as ``predict`` writes them, a dict a row: the same columns and digits, None where there is none."""
    return [
        {"smiles": smiles, **{name: _value(name, cell) for name, cell in zip(found.added, cells, strict=True)}}
        for smiles, cells in zip(found.smiles, found.rows(), strict=True)
    ]


def _value(name: str, cell: str) -> str | float | int | None:
    if name in (UNLIKE, "error"):
        return cell
    number = float(cell or math.nan)
    if not math.isfinite(number):  # JSON has no word for it
        return None
    return int(number) if name == "class" and number.is_integer() else number


def facts(checkpoint: str | PathLike[str], meta: Meta, columns: Sequence[str]) -> dict[str, Any]:
    """What the model is: what its checkpoint says, and for the folder of a run what its model card says."""
    config, scores = meta.train_config, Path(checkpoint) / SCORES
    found: dict[str, Any] = {"status": "ok", "plstm_graph": __version__, "data": Path(config.data).name}
    found |= {"task": meta.asked.name, "targets": list(meta.asked.targets), "columns": list(columns)}
    found |= {"model": config.model.model, "ensemble": config.ensemble, "trained_with": meta.versions}
    if scores.is_file():
        stored = read_json(scores)
        found |= {name: stored[name] for name in ("split", *CARD) if name in stored}
    return found


class LimitedBody:
    """Refuses requests with a body of more than so many bytes, whether they say how long it is or not (status 413)."""

    def __init__(self, app: Any, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI calls it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most:
            await JSONResponse({"detail": self._reason}, 413)(scope, receive, send)
            return
        count = 0

        async def counted() -> Any:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.most:
                raise HTTPException(413, self._reason)
            return message

        await self.app(scope, counted, send)

    @property
    def _reason(self) -> str:
        return f"a body may have at most {self.most:,} bytes; ask in parts"


def application(
    checkpoint: str | PathLike[str],
    *,
    device: str = "auto",
    batch_size: int = 256,
    most_molecules: int = MOST_MOLECULES,
    most_bytes: int = MOST_BYTES,
) -> FastAPI:
    """An ASGI application that answers for a model: ``POST /predict`` and ``GET /health``.

    Args:
        checkpoint: file, or folder of a run.
        device: "auto", "cpu", "cuda", ...
        batch_size: molecules at once.
        most_molecules, most_bytes: of a request.

    Raises:
        CheckpointError: the file cannot be used, or its model was not trained on molecules.
        PLSTMGraphError: the extra ``serve`` is not installed.
    """
    learner, meta = restore_for_molecules(checkpoint, device)
    kinds = meta.train_config.descriptors
    look = Lookup(kinds, features=meta.spec) if kinds else ()
    batcher = Batcher(partial(answers, learner, meta, batch_size=batch_size, descriptors=look))
    about = facts(checkpoint, meta, ["smiles", *answers(learner, meta, []).added])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    app = FastAPI(title="plstm-graph", version=__version__, description=str(about["data"]), lifespan=lifespan)
    app.add_middleware(LimitedBody, most=most_bytes)

    @app.exception_handler(PLSTMGraphError)
    async def told(request: Request, error: PLSTMGraphError) -> JSONResponse:
        return JSONResponse({"detail": said(error)}, 500)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        """What was sent is not sent back: it may be long, or not be JSON again."""
        return JSONResponse({"detail": [{name: each[name] for name in _REASON} for each in error.errors()]}, 422)

    @app.post("/predict")
    async def predict(asked: Molecules) -> dict[str, list[dict[str, Any]]]:
        """A row a molecule, in order, with the columns that ``plstm-graph predict`` writes."""
        if len(asked.smiles) > most_molecules:
            detail = f"a request may have at most {most_molecules:,} molecules, got {len(asked.smiles):,}; ask in parts"
            raise HTTPException(413, detail)
        return {"predictions": await batcher.ask(asked.smiles)}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """That the model is there, and what its model card says."""
        return about

    return app
