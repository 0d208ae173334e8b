"""``plstm-graph serve`` in a process of its own, asked over HTTP."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from small_runs import small_config, told, write_csv
from typer.testing import CliRunner

from plstm_graph.cli import app
from plstm_graph.train import train


def test_it_answers_until_it_is_stopped(tmp_path: Path) -> None:
    train(small_config(out=tmp_path / "run", data=write_csv(tmp_path / "a.csv"), targets="y", epochs=1))
    words = [sys.executable, "-m", "plstm_graph", "serve", str(tmp_path / "run"), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        place = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
        assert place is not None
        kind = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{place[0]}/predict", b'{"smiles": ["CCO", "C1CC"]}', kind)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            rows = json.load(answer)["predictions"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert told(process.stderr.read()) == ""
    assert [bool(row["error"]) for row in rows] == [False, True]


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = CliRunner().invoke(app, ["serve", str(tmp_path / "best.ckpt"), "--port", str(port)])
    assert found.exit_code == 2
    assert found.stderr.startswith(f"error: cannot listen at 127.0.0.1, port {port}: Address already in use; give")
