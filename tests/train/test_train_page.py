"""Pages of runs, as a parser reads them and as a browser shows them."""

import base64
import csv
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from awkward import made_run, made_series
from small_runs import small_config, small_dataset, three_classes, write_csv

from plstm_graph.errors import ConfigError, TargetError
from plstm_graph.io.json_csv import write_json
from plstm_graph.train import train
from plstm_graph.train.page import write_page
from plstm_graph.train.page.parts import fixed, signed

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Reader(HTMLParser):
    """Text, pictures and whatever would be fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.pictures, self.fetched, self.open = "", [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in ("img", "meta", "source"):
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(found)
        links = [found[name] for name in ("src", "href", "srcset", "data") if found.get(name)]
        self.fetched += [link for link in links if not link.startswith(("data:image/svg+xml;base64,", "#"))]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1:] != ["style"] else ""


def checked(path: Path) -> Reader:
    """A page that is well formed, fetches nothing, and says what each picture shows."""
    page = Reader(path)
    assert page.open == []
    assert page.fetched == []
    assert "url(" not in path.read_text()
    for picture in page.pictures:
        assert len(picture["alt"]) > 10
        assert b"<svg" in base64.b64decode(picture["src"].partition(",")[2])[:2000]
    return page


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plstm_graph.train.analysis.RESAMPLES", 20)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``first`` and ``second`` differ in their seed, ``other`` also in its width; then a run of each other task."""
    folder = tmp_path_factory.mktemp("runs")
    dataset = small_dataset(folder, targets=("y", "z"))
    common = {"epochs": 2, "split_seed": 0}
    train(small_config(out=folder / "first", **common), dataset, command="plstm-graph train --data <my> & co.csv")
    train(small_config(out=folder / "second", seed=1, **common), dataset)
    train(small_config(out=folder / "other", seed=2, model_width=16, **common), dataset)
    train(small_config(out=folder / "binary", **common), small_dataset(folder, "binary"))
    classes = three_classes(small_dataset(folder))
    for graph in classes.graphs:
        del graph.smiles
    train(small_config(out=folder / "classes", split="random", model_order="index", **common), classes)
    return folder


def unfinished(runs: Path, folder: Path) -> Path:
    """A run as it is after its first epoch."""
    folder.mkdir()
    shutil.copy(runs / "first" / "config.toml", folder)
    lines = (runs / "first" / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(lines[:2]))
    return folder


def test_the_page_of_a_regression(runs: Path) -> None:
    assert write_page([runs / "first"]) == runs / "first" / "report.html"
    page = checked(runs / "first" / "report.html")
    stored = json.loads((runs / "first" / "metrics.json").read_text())
    assert fixed(stored["test"]["r2"]) in page.text
    assert f"{stored['parameters']:,}" in page.text
    for words in (stored["data_hash"], stored["command"], "test, 95 % interval", "predicted", "model.width", "torch"):
        assert words in page.text
    shown = [picture["alt"] for picture in page.pictures]
    assert [text.split()[0] for text in shown[:3]] == ["Line", "Predicted", "Quantiles"]
    drawn = {text.removeprefix("Structure of ") for text in shown[3:]}
    with (runs / "first" / "predictions.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "test"]
    assert drawn == {row["smiles"] for row in rows}  # four test graphs: all are among the worst
    assert all(f"row {row['row']}" in page.text for row in rows)


def test_rows_and_ids_of_the_file_survive(tmp_path: Path) -> None:
    lines = write_csv(tmp_path / "plain.csv").read_text().splitlines()
    table = [f"{line},{'Compound ID' if not number else f'CH-{number}'}" for number, line in enumerate(lines)]
    table[3] = "C1CC,1,1,CH-3"
    (tmp_path / "my.csv").write_text("\n".join(table) + "\n")
    train(small_config(data=tmp_path / "my.csv", targets="y", out=tmp_path / "run", epochs=1))
    with (tmp_path / "run" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 39
    for row in rows:  # in the numbering of rejected.csv
        assert row["id"] == f"CH-{row['row']}"
        assert row["smiles"] == table[int(row["row"])].split(",")[0]
    assert (tmp_path / "run" / "rejected.csv").read_text().splitlines()[0] == "row,text,reason,id"
    assert (tmp_path / "run" / "rejected.csv").read_text().endswith(",CH-3\n")
    page = checked(write_page([tmp_path / "run"]))
    tested = [row for row in rows if row["part"] == "test"]
    for row in tested:
        assert f"row {row['row']}, {row['id']}" in page.text
        error = float(row["y_predicted"]) - float(row["y"])
        assert (
            f"{fixed(float(row['y']), 3)}, predicted {fixed(float(row['y_predicted']), 3)}, error {signed(error, 3)}"
            in page.text
        )


def test_a_page_allows_nothing_from_outside(runs: Path, tmp_path: Path) -> None:
    text = write_page([runs / "first"], tmp_path / "page.html").read_text()
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (found,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    allowed = dict(part.split(maxsplit=1) for part in html.unescape(found).split("; "))
    assert allowed.pop("style-src") == f"'sha256-{digest}'"
    assert allowed == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    assert text.index(found) < text.index("<style>")
    assert " style=" not in text


def test_the_page_of_a_binary_task(runs: Path, tmp_path: Path) -> None:
    page = checked(write_page([runs / "binary"], tmp_path / "page.html"))
    assert "Expected calibration error (ECE): 0." in page.text
    alts = " ".join(picture["alt"] for picture in page.pictures)
    assert all(words in alts for words in ("ROC curve", "Precision-recall curve", "Reliability diagram, ECE 0."))


def test_the_page_of_classes_without_smiles(runs: Path, tmp_path: Path) -> None:
    page = checked(write_page([runs / "classes"], tmp_path / "page.html"))
    assert "The graphs carry no SMILES" in page.text
    alts = [picture["alt"] for picture in page.pictures]
    right = round(json.loads((runs / "classes" / "metrics.json").read_text())["test"]["accuracy"] * 4)
    assert f"Confusion matrix: {right} of 4 test graphs are right." in alts
    assert not any("Structure" in text for text in alts)


def test_several_runs_are_compared(runs: Path, tmp_path: Path) -> None:
    page = checked(write_page([runs / name for name in ("first", "second", "other")], tmp_path / "page.html"))
    assert "2 trainings compared" in page.text
    stored = [json.loads((runs / name / "metrics.json").read_text()) for name in ("first", "second")]
    values = [found["test"]["r2"] for found in stored]
    mean, spread = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert f"{fixed(mean)} ± {fixed(spread)}" in page.text  # of the two that differ in their seed alone
    third = json.loads((runs / "other" / "metrics.json").read_text())["test"]["r2"]
    assert signed(third - values[0]) in page.text  # one pair: the second has no mate on its test graphs left
    text = (tmp_path / "page.html").read_text().split('id="configuration"')[1].split("</section>")[0]
    assert re.findall(r'<th scope="row">([\w.]+)</th>', text) == ["seed", "model.width"]
    assert "<dt>model.layers</dt>" in text  # the rest once


def test_the_folder_of_a_series_stands_for_its_runs(runs: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(runs / name, tmp_path / name)
    (tmp_path / "series.toml").touch()
    assert write_page([tmp_path]) == tmp_path / "report.html"
    page = checked(tmp_path / "report.html")
    stored = [json.loads((runs / name / "metrics.json").read_text()) for name in ("first", "second")]
    values = [found["test"]["r2"] for found in stored]
    told = f"{fixed(sum(values) / 2, 3)} ± {fixed(abs(values[0] - values[1]) / 2**0.5, 3)}"
    first, second = page.text.split(told)[:2]
    assert first.rstrip().endswith("test R²")
    assert second.lstrip().startswith("mean ± unbiased standard deviation over 2 seeds (2 runs)")
    assert "Paired differences" not in page.text
    assert "2 runs: 2 seeds, seeds 0-1" in page.text


def test_a_series_is_one_row_and_two_are_paired_fold_by_fold(tmp_path: Path) -> None:
    folders = [made_series(tmp_path / name, 4, task="binary", skill=skill) for name, skill in (("a", 0.3), ("b", 0.9))]
    for fold in range(4):  # of one training, whatever the test graphs
        metrics = folders[1] / f"fold-{fold}" / "metrics.json"
        write_json(metrics, json.loads(metrics.read_text()) | {"test": {"rocauc": 0.1 * fold}})
    page = checked(write_page(folders, tmp_path / "page.html"))
    assert f"0.1500 ± {(0.05 / 3) ** 0.5:.4f}" in page.text
    text = (tmp_path / "page.html").read_text()
    rows = re.findall(r'<th scope="row">(\S+)</th>', text.split('id="results"')[1].split("<details>")[0])
    assert rows == ["a", "b"]
    (cells,) = re.findall(r"<tr>(.*?)</tr>", text.split('id="paired-differences"')[1].split("</tbody>")[0], re.DOTALL)[
        1:
    ]
    assert re.findall(r">([^<]+)<", cells)[:2] == ["b", "4"]
    assert "other test graphs" not in page.text
    assert page.text.count("fold-3") == 2  # among the single runs, which are shown on request, and nowhere else
    alone = checked(write_page(folders[:1], tmp_path / "one.html"))
    assert "best on validation" not in alone.text
    assert "--folds 0-3 --out runs/a" in alone.text


def test_a_forest_has_neither_epochs_nor_parameters(tmp_path: Path) -> None:
    forest = made_run(tmp_path / "forest", model="fingerprint", epochs=0)
    pages = [write_page([forest]), write_page([forest, made_run(tmp_path / "net", skill=0.1)], tmp_path / "both.html")]
    for page in map(checked, pages):
        assert "0 of 0" not in page.text
        assert not re.search(r"\bparameters\s*0\b|epoch 0\b|\b0 parameters", page.text)
    assert "last epoch" not in checked(pages[0]).text


def test_what_a_leaderboard_asks_for_stands_in_one_place(tmp_path: Path) -> None:
    made_series(tmp_path / "ten", by="seed")
    made_series(tmp_path / "half", 4, by="seed", finished=3)
    text = (write_page([tmp_path / "ten"])).read_text()
    line = html.unescape(re.sub("</?span>", "", re.search(r"<pre><code>(.*)</code>", text)[1]))
    values = [
        json.loads((tmp_path / "ten" / f"seed-{k}" / "metrics.json").read_text())["test"]["r2"] for k in range(10)
    ]
    assert f"test R² {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} | valid R² " in line
    assert "10 runs: 10 seeds, seeds 0-9 | 280,037 parameters | AMD EPYC, 2 cores, no GPU | external data: none" in line
    assert line.endswith("plstm-graph train --data made.csv --seeds 0-9 --out runs/ten")
    note = checked(write_page([tmp_path / "half"])).text
    assert "Series half: seed-3 is not finished. Numbers are of the other 3. Go on with: plstm-graph train" in note


def test_an_unfinished_run_shows_what_is_there(runs: Path, tmp_path: Path) -> None:
    folder = unfinished(runs, tmp_path / "half")
    page = checked(write_page([folder]))
    assert "Run half is not finished: 1 of 2 epochs are there" in page.text
    assert len(page.pictures) == 1
    page = checked(write_page([folder, runs / "first"], tmp_path / "page.html"))
    assert "Run half is not finished" in page.text
    assert "1 seed" in page.text


def test_a_run_of_an_earlier_version_has_no_predictions(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "first", tmp_path / "old")
    (tmp_path / "old" / "predictions.csv").unlink()
    page = checked(write_page([tmp_path / "old"]))
    assert "an earlier version made this run" in page.text
    assert len(page.pictures) == 1


def test_other_test_graphs_are_not_paired(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "other", tmp_path / "moved")
    table = tmp_path / "moved" / "predictions.csv"
    table.write_text(table.read_text().replace("\ntest,", "\ntest,1"))
    page = checked(write_page([runs / "first", tmp_path / "moved"], tmp_path / "page.html"))
    assert "other test graphs" in page.text


def test_what_cannot_be_reported(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not the folder of a run"):
        write_page([runs / "first", tmp_path])
    with pytest.raises(ConfigError, match=r"share task, metric and targets; first has .*report them one by one"):
        write_page([runs / "first", runs / "binary"], tmp_path / "page.html")
    (tmp_path / "config.toml").write_text("epochs = 3\n")
    checked(write_page([tmp_path]))
    shutil.copytree(tmp_path, tmp_path / "copy")
    with pytest.raises(ConfigError, match="none of the runs has finished an epoch"):
        write_page([tmp_path, tmp_path / "copy"], tmp_path / "page.html")
    with pytest.raises(TargetError, match="there is no folder"):
        write_page([runs / "first"], tmp_path / "no" / "page.html")


def test_text_of_a_run_is_text(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "first", tmp_path / "odd")
    stored = json.loads((runs / "first" / "metrics.json").read_text())
    write_json(tmp_path / "odd" / "metrics.json", stored | {"command": "<script>alert(1)</script>"})
    text = write_page([tmp_path / "odd"]).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_all_pictures_and_no_sideways_scrolling(runs: Path, tmp_path: Path) -> None:
    """A frame of a phone's width reports, from inside, how wide its page is and how many pictures have a size."""
    write_page([runs / "first"], tmp_path / "page.html")
    probe = (
        "<script>onload = () => { const page = frames[0].document, html = page.documentElement; document.title = "
        "[html.scrollWidth, [...page.images].filter(i => i.complete && i.naturalWidth > 50 && i.width <= 390).length, "
        "page.images.length].join(' ') }</script><iframe src='page.html' width='390' height='900'></iframe>"
    )
    (tmp_path / "probe.html").write_text(probe)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    words = [str(BROWSER), *flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    width, shown, pictures = map(int, re.search(r"<title>(.*)</title>", done.stdout)[1].split())
    assert width <= 390
    assert shown == pictures == 7
