"""How a command ends: at once, with its exit code and all that it printed, after what waits for the end."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys, threading, time
from plstm_graph.cli import program
print("begun", end="")
atexit.register(lambda: print(" at exit", end=""))
threading.Thread(target=lambda: (time.sleep(0.1), print(" thread", end=""))).start()
class Slow:
    def __del__(self): print(" taken apart", end="")
sys.modules["slow"] = Slow()
program.app = lambda: sys.exit(CODE)
program.run()
"""


@pytest.mark.parametrize(("code", "found"), [("0", 0), ("None", 0), ("2", 2), ("'a reason'", 1)])
def test_a_command_ends_with_its_code_once_all_is_done_but_takes_no_modules_apart(code: str, found: int) -> None:
    words = [sys.executable, "-c", SCRIPT.replace("CODE", code)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == found
    assert done.stdout.startswith("begun thread at exit")
    assert ("taken apart" in done.stdout) == (code == "'a reason'")
    assert done.stderr.strip() == ("a reason" if code == "'a reason'" else "")


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
    ids=str,
)
def test_threads_wait_for_each_other_asleep_unless_told_otherwise(given: dict[str, str], found: str) -> None:
    script = "import os, sys\nfrom plstm_graph.cli import program\nassert 'torch' not in sys.modules\n"
    script += "program.app = lambda: (print(os.environ.get('GOMP_SPINCOUNT')), sys.exit(0))\nprogram.run()"
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=others | given)
    assert done.stdout.strip() == found


COMMAND = """
import sys
from plstm_graph.cli import program
def answer(debug: bool = False) -> None:
    BODY
program.app = program.typer.Typer(pretty_exceptions_enable=False)
program.app.command()(program._guarded(answer))
program.run()
"""


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        "program.typer.echo('x')",
        "print('x')",
        "import rich; rich.print('x')",
        "from plstm_graph.io.files import write_text; write_text('/dev/stdout', 'x')",
    ],
    ids=["typer", "print", "rich", "a file"],
)
def test_output_that_nobody_reads_ends_the_program_without_a_word(body: str, unbuffered: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    words = [sys.executable, "-c", COMMAND.replace("BODY", body)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1  # as programs of click and rich end


@pytest.mark.parametrize(
    ("place", "said"),
    [("", "a process that works for this one has ended"), ("to", "cannot use to: who read from it has ended")],
)
def test_a_broken_pipe_to_anything_else_is_an_error(place: str, said: str) -> None:
    body = f"raise BrokenPipeError(32, 'Broken pipe', {place or None!r})"
    words = [sys.executable, "-c", COMMAND.replace("BODY", body)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
    done = subprocess.run([*words, "--debug"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "in answer" in done.stderr
    assert done.stderr.endswith(f"PLSTMGraphError: {said}\n")
