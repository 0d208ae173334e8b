"""The command ``serve``: a trained model that answers over HTTP."""

import socket
from contextlib import suppress
from typing import Annotated

import typer

from plstm_graph.cli.predict import BatchSize, Device
from plstm_graph.cli.program import command
from plstm_graph.cli.shared import Debug
from plstm_graph.errors import ConfigError, PLSTMGraphError, missing_extra

LOCAL = ("127.0.0.1", "localhost", "::1")
MOST_WAITING = 100
"""Connections at a time; a further one is told to come back (status 503)."""


@command()
def serve(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or a checkpoint.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own is open to the network.")
    ] = (LOCAL[0]),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    max_molecules: Annotated[int, typer.Option(min=1, help="Most molecules in a request.")] = 1000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Most bytes in the body of a request.")] = 2**20,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Answer over HTTP: POST /predict with {"smiles": ["CCO"]} returns a row per molecule, GET /health the model card.

    Asked by: curl -H "Content-Type: application/json" -d '{"smiles": ["CCO"]}' http://127.0.0.1:8000/predict
    """
    from plstm_graph.train.folders import check_checkpoint

    check_checkpoint(run)
    with _listening(host, port) as listener:
        try:
            import uvicorn
        except ModuleNotFoundError as error:
            raise PLSTMGraphError(missing_extra("uvicorn", "serve")) from error
        from plstm_graph.train.inference.serving import application

        limits = {"most_molecules": max_molecules, "most_bytes": max_bytes}
        app = application(run, device=device, batch_size=batch_size, **limits)
        config = uvicorn.Config(app, log_level="warning", limit_concurrency=MOST_WAITING)
        if host not in LOCAL:
            typer.echo(f"note: whoever reaches {host} may ask; there is no password", err=True)
        place = f"[{host}]" if ":" in host else host
        typer.echo(f"{run} answers at http://{place}:{listener.getsockname()[1]} until Ctrl-C", err=True)
        with suppress(KeyboardInterrupt):  # when uvicorn has ended, it passes on what ended it
            uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket bound to the address, before the model is loaded.

    Raises:
        ConfigError: there is no such address here, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot listen at {host}, port {port}: {reason}; give another --port or --host") from error
    return listener
