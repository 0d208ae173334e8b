"""The program ``plstm-graph``: how commands join it, what it makes of errors, and how it is interrupted."""

import atexit
import functools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

from plstm_graph import __version__
from plstm_graph.errors import Diverged, PLSTMGraphError, missing_extra, said

try:
    import typer
except ModuleNotFoundError as error:  # the console script exists even without the extra
    raise SystemExit(missing_extra("typer", "train")) from error

from typer.core import TyperGroup

from plstm_graph.cli.examples import EXAMPLES, epilog

FAILED, USAGE, INTERRUPTED = 1, 2, 130
SPINS = "10000"
"""How often a thread of torch's asks whether the others are done before it sleeps. OpenMP's default is thirty times as
often, at every operation, also while another process keeps the other thread from its core: a training beside a busy
process then hardly gets on."""
PATIENCE_S = 5.0
"""So long after the first Ctrl-C a command may take to end; a later one ends it where it is."""


class _InOrder(TyperGroup):
    def list_commands(self, _: Any) -> list[str]:
        return list(EXAMPLES)


app = typer.Typer(
    cls=_InOrder,
    help="pLSTM for graphs: train on molecules and graphs, predict, evaluate.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(**how: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that makes a function a command of the program, with the example and the page of its help."""

    def join(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(epilog=epilog(function.__name__), **how)(_guarded(function))

    return join


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Errors a user can do something about become one line on stderr and exit code 2; the rest keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (PLSTMGraphError, OSError, MemoryError, KeyboardInterrupt) as error:
            broken = isinstance(error, BrokenPipeError)
            if broken and _is_unread():
                raise  # click ends a program whose output nobody reads without a word
            if kwargs.get("debug"):
                if broken:
                    raise PLSTMGraphError(said(error)) from error
                raise
            text, code = _ending(error)
            typer.echo(text, err=True)
            raise typer.Exit(code) from error

    return run


def _ending(error: BaseException) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, MemoryError):
        return "error: this machine has no memory for that; give less data, or a smaller --batch-size", FAILED
    return f"error: {said(error)}", FAILED if isinstance(error, Diverged) else USAGE


def _is_unread() -> bool:
    """Whether what this process prints goes to a pipe that is closed, as by ``| head``. A broken pipe may also be that
    to a process which has died, or one that ``--out`` names."""
    if not hasattr(select, "poll"):  # on Windows, where a closed pipe is another error
        return False
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"plstm-graph {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _common(version: Version = False) -> None:
    pass


class _Stop:
    """Ctrl-C or SIGTERM ends the command once; more of them while it ends change nothing, unless it hangs."""

    def __init__(self) -> None:
        self.since: float | None = None

    def __call__(self, *_: Any) -> None:
        if self.since is None:
            self.since = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self.since > PATIENCE_S:
            os.write(2, b"interrupted at once\n")
            os._exit(INTERRUPTED)


def run() -> None:
    """Entry point of ``plstm-graph``: :func:`main` as all that a process does, which ends with it at once."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        main()
    except SystemExit as end:
        leave(end)
        raise


def main() -> None:
    """The command that ``sys.argv`` asks for; ends in SystemExit."""
    stop = _Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, stop)
    app()


def leave(end: SystemExit) -> None:
    """Ends the process as the interpreter would, but does not take its modules apart, which takes nearly as long as
    their imports. Returns where the interpreter has more to do."""
    if not isinstance(end.code, int | None) or "CUDA_INJECTION64_PATH" in os.environ:  # a profiler waits for the end
        return
    threading._shutdown()  # type: ignore[attr-defined]  # waits for those that are to be waited for
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BrokenPipeError:
        os._exit(end.code or FAILED)  # as click does
    except (OSError, ValueError):  # the interpreter tells of it
        return
    os._exit(end.code or 0)
