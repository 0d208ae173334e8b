"""Leaderboards: what a config asks for, what is skipped, how runs are summarised."""

import json
from dataclasses import replace
from itertools import product

import leaderboard
import pytest
import records
from boards import board, leaderboard_table
from plan import read_plan, stored
from small_runs import write_csv

from plstm_graph.errors import ConfigError
from plstm_graph.train import blend, shared
from plstm_graph.train.defaults import default_config

CONFIG = """
title = "A small one"
[data]
name = "nav17"
split = "random"
seeds = [0, 1]
[train]
lr = 0.01
model.width = 8
[[entry]]
name = "own"
[[entry]]
name = "deep"
model.layers = 7
[[entry]]
name = "forest"
model.model = "fingerprint"
model.trees = 3
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    return path


class FakeTrainer:
    """Counts its calls; fails for the entries it is told to."""

    def __init__(self, *failing):
        self.failing, self.calls = failing, []

    def __call__(self, job, say):
        self.calls.append((job.entry, job.config.seed))
        if job.entry in self.failing:
            raise RuntimeError("out of memory")
        value = 0.5 + 0.1 * job.config.seed
        found = {"metric": "r2", "valid": {"r2": value}, "test": {"r2": value - 0.2}, "minutes": 0.1, "device": "cpu"}
        return leaderboard.row_of(job, found | {"parameters": 1234, "best_epoch": 3, "data_hash": "aa"})


def todo(path, rows):
    plan = read_plan(path)
    done = stored(plan, rows)
    return [job for job in plan.jobs if job.key not in done]


def test_a_plan_has_every_seed_of_every_entry(config):
    plan = read_plan(config, "data/")
    assert [(job.entry, job.config.seed) for job in plan.jobs] == [
        (entry, seed) for entry in ("own", "deep", "forest") for seed in (0, 1)
    ]
    own, deep, trees = plan.jobs[0], plan.jobs[2], plan.jobs[4]
    assert (own.config.lr, own.config.model.width, own.config.root) == (0.01, 8, "data/")
    assert (deep.config.model.layers, deep.config.model.width) == (7, 8)
    assert (trees.config.model.model, trees.config.model.trees) == ("fingerprint", 3)
    assert len({job.key for job in plan.jobs}) == 6


def test_where_the_data_lie_does_not_name_a_run(config):
    assert [job.key for job in read_plan(config, "here").jobs] == [job.key for job in read_plan(config).jobs]
    assert "root" not in read_plan(config, "here").jobs[0].content()


def test_stored_runs_are_skipped_and_failed_ones_are_not(config, tmp_path):
    rows, fake = tmp_path / "small.jsonl", FakeTrainer("deep")
    failed = leaderboard.run_all(todo(config, rows), rows, run=fake)
    assert [job.entry for job, _ in failed] == ["deep", "deep"]
    assert len(fake.calls) == 6

    again = FakeTrainer()
    assert leaderboard.run_all(todo(config, rows), rows, run=again) == []
    assert again.calls == [("deep", 0), ("deep", 1)]
    assert todo(config, rows) == []


def test_runs_that_last_longer_than_the_minutes_go_on(tmp_path, capsys):
    path = tmp_path / "small.toml"
    head = f'[data]\nname = "{write_csv(tmp_path / "my.csv")}"\ntargets = ["y"]\nalso = ["{tmp_path / "my.csv"}"]\n'
    path.write_text(head + "[train]\nepochs = 2\nmodel.width = 8\n[[entry]]\nname = 'one'\n[[entry]]\nname = 'two'\n")
    path.write_text(path.read_text() + "model.layers = 1\n")
    arguments = [str(path), "--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--minutes"]
    assert leaderboard.main([*arguments, "1"]) == 0
    assert "one seed 0 fold 0: there is no time to begin" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        train = leaderboard.train
        patch.setattr(leaderboard, "train", lambda *given, minutes, **how: train(*given, minutes=1e-6, **how))
        assert leaderboard.main([*arguments, "5"]) == 0
    assert "two seed 0 fold 0: 1e-06 minutes are over after epoch 1 of 2" in capsys.readouterr().out
    assert leaderboard.main([*arguments, "5"]) == 0
    rows = records.read(tmp_path / "results" / "small.jsonl")
    assert [row["entry"] for row in rows] == ["one", "two"]
    assert "r2" in rows[0]["also"][str(tmp_path / "my.csv")]


def test_means_and_intervals_of_two_test_sets(tmp_path):
    path = tmp_path / "arrow.toml"
    path.write_text(
        '[data]\nname = "arrow"\nseeds = [0, 1, 2]\n[published]\none = [".9 ± .1", ".7"]\n'
        '[[entry]]\nname = "one"\n[[entry]]\nname = "two"\nlr = 0.1\n'
    )
    plan = read_plan(path)
    where = {
        "machine": {"device": "A GPU", "cores": 1, "threads": 1},
        "versions": {},
        "date": "2026-01-02",
        "commit": "a",
    }

    def rows(jobs):
        shared = {"metric": "accuracy", "params": 5000, "minutes": 2, "dirty": False, "command": "x"} | where
        return {
            job.key: shared
            | {"test": {"accuracy": 0.9 + 0.01 * job.config.seed}, "also": {"arrow-384": {"accuracy": 0.5}}}
            for job in jobs
        }

    table = board(plan, rows(plan.jobs[:5]))  # of the second entry a seed is missing
    # Student's t with two degrees of freedom, 2.920, times 0.01 over the root of 3
    assert "| one | 5,000 | 0.910 ± 0.017 | 0.500 ± 0.000 | .9 ± .1 | .7 | 3 | 2.0 |" in table
    assert "| two" not in table
    assert "Not all runs yet: two." in table
    assert "| two | 5,000 | 0.910 ± 0.017 | 0.500 ± 0.000 | - | - | 3 | 2.0 |" in board(plan, rows(plan.jobs))


def test_a_changed_setting_runs_anew_and_the_old_rows_stay(config, tmp_path):
    rows = tmp_path / "small.jsonl"
    leaderboard.run_all(todo(config, rows), rows, run=FakeTrainer())
    config.write_text(CONFIG.replace("layers = 7", "layers = 8"))
    fake = FakeTrainer()
    leaderboard.run_all(todo(config, rows), rows, run=fake)
    assert fake.calls == [("deep", 0), ("deep", 1)]
    assert len(rows.read_text().splitlines()) == 8


def test_runs_that_are_kept_can_be_blended(tmp_path):
    path, kept = tmp_path / "small.toml", tmp_path / "kept"
    head = f'[data]\nname = "{write_csv(tmp_path / "my.csv")}"\ntargets = ["y"]\nsplit_seed = 0\nseeds = [0, 1]\n'
    entries = "\n".join(f'[[entry]]\nname = "{kind}"\nmodel.fingerprint = "{kind}"' for kind in ("maccs", "morgan"))
    path.write_text(f'{head}[train]\nmodel.model = "fingerprint"\nmodel.trees = 2\n{entries}')
    arguments = [str(path), "--results", str(tmp_path / "results"), "--keep", str(kept)]
    assert leaderboard.main(arguments) == 0
    found = blend([kept / "maccs", kept / "morgan" / "seed-1"], tmp_path / "out")
    assert [each["runs"] for each in found["members"]] == [2, 1]
    rows = records.read(tmp_path / "results" / "small.jsonl")
    assert found["members"][1]["test"] == pytest.approx(rows[-1]["test"], abs=1e-6)
    assert leaderboard.main([*arguments, "--only", "maccs"]) == 0
    with pytest.raises(SystemExit):
        leaderboard.main([*arguments, "--minutes", "5", "--runs", str(kept)])


def test_rows_of_other_data_are_not_joined(tmp_path, capsys):
    """The file changed between two calls, and then while the second one ran."""
    data, path = write_csv(tmp_path / "my.csv"), tmp_path / "small.toml"
    entries = "\n".join(f'[[entry]]\nname = "{trees}"\nmodel.trees = {trees}' for trees in (2, 3))
    head = f'[data]\nname = "{data}"\ntargets = ["y"]\n[train]\nmodel.model = "fingerprint"\n'
    path.write_text(head + entries)
    arguments = [str(path), "--results", str(tmp_path / "results")]
    assert leaderboard.main([*arguments, "--only", "2"]) == 0
    old = data.read_text()
    data.write_text(old + "CCCCCCCS,3,0\n")
    shared.forget()  # as the next call of the program
    assert leaderboard.main(arguments) == 1
    assert "failed: DataError: the stored rows are of other data of this name" in capsys.readouterr().err
    data.write_text(old)
    shared.forget()
    assert leaderboard.main(arguments) == 0

    hashes = iter(("aa", "bb"))
    jobs = read_plan(path).jobs
    run = lambda job, say: FakeTrainer()(job, say) | {"data_hash": next(hashes)}  # noqa: E731
    ((job, failure),) = leaderboard.run_all(jobs, tmp_path / "other.jsonl", run=run)
    assert (job.entry, failure.reason) == ("3", leaderboard.OTHER_DATA)


def test_a_setting_younger_than_the_row_counts_as_its_default(config, tmp_path):
    rows = tmp_path / "small.jsonl"
    leaderboard.run_all(todo(config, rows), rows, run=FakeTrainer())
    content = [json.loads(line) for line in rows.read_text().splitlines()]
    for row in content:
        row["config"].pop("clip", None)
    rows.write_text("".join(json.dumps(row) + "\n" for row in content))
    assert todo(config, rows) == []
    content[0]["config"]["gone"] = 1  # and a row with a setting that is no more is nobody's
    rows.write_text("".join(json.dumps(row) + "\n" for row in content))
    assert [(job.entry, job.config.seed) for job in todo(config, rows)] == [("own", 0)]


def test_what_a_forest_does_not_read_does_not_name_its_run(config, tmp_path):
    rows = tmp_path / "small.jsonl"
    leaderboard.run_all(todo(config, rows), rows, run=FakeTrainer())
    stored_rows = [json.loads(line) for line in rows.read_text().splitlines()]
    (first, *_) = (row for row in stored_rows if row["entry"] == "forest")
    of_forest = {"model": "fingerprint", "trees": 3, "radius": 2, "bits": 2048, "counts": False}
    of_forest |= {"fingerprint": "morgan", "min_samples_leaf": 1, "entropy": False}
    assert first["config"]["model"] == of_forest
    assert "lr" not in first["config"]
    config.write_text(CONFIG.replace("lr = 0.01", "lr = 0.02"))
    assert {job.entry for job in todo(config, rows)} == {"own", "deep"}


def test_rows_from_before_a_forest_was_a_model_still_count(config, tmp_path):
    rows = tmp_path / "small.jsonl"
    old = {"entry": "forest", "kind": "fingerprint-forest", "seed": 0}
    old["config"] = {"data": "nav17", "split": "random", "seed": 0, "fold": 0, "trees": 3, "radius": 2}
    rows.write_text(json.dumps(old) + "\n")
    assert [job.config.seed for job in todo(config, rows) if job.entry == "forest"] == [1]


def test_a_line_cut_short_costs_that_line_only(config, tmp_path, capsys):
    rows = tmp_path / "small.jsonl"
    leaderboard.run_all(todo(config, rows), rows, run=FakeTrainer())
    rows.write_text(rows.read_text()[:-40])
    assert [job.entry for job in todo(config, rows)] == ["forest"]
    leaderboard.run_all(todo(config, rows), rows, run=FakeTrainer())
    assert todo(config, rows) == []
    assert "line 6 is cut short" in capsys.readouterr().err


def test_the_table_counts_what_is_missing(config, tmp_path):
    rows = tmp_path / "small.jsonl"
    leaderboard.run_all(todo(config, rows)[:3], rows, run=FakeTrainer())
    plan = read_plan(config)
    lines = leaderboard_table(plan, stored(plan, rows)).splitlines()
    assert lines[0] == "A small one (r2, mean ± standard error over runs)"
    assert lines[4].startswith("| own | 1,234 | 0.5500 ± 0.0500 | 0.3500 ± 0.0500 | 0.0707 | - | 2 |")
    assert "| 1/2 |" in lines[5]
    assert lines[6:8] == ["", "Not run yet: forest."]
    assert leaderboard_table(plan, {}).splitlines() == [
        "A small one (no runs yet)",
        "",
        "Not run yet: own; deep; forest.",
    ]


def test_scores_of_each_of_several_targets_have_columns(config, tmp_path):
    """A mean over probabilities and depths says nothing of either."""
    rows, targets = (
        tmp_path / "small.jsonl",
        {name: {"test": {"r2": at}} for name, at in (("p", 0.25), ("depth", 0.75))},
    )

    def run(job, say):
        found = {"metric": "r2", "valid": {"r2": 0.5}, "test": {"r2": 0.5}, "minutes": 0.1, "device": "cpu"}
        rest = {"parameters": 1, "best_epoch": 1, "data_hash": "aa", "by_target": targets}
        return leaderboard.row_of(job, found | rest)

    plan = read_plan(config)
    leaderboard.run_all(plan.jobs[:2], rows, run=run)
    heads, _, first, *_ = leaderboard_table(plan, stored(plan, rows)).splitlines()[2:]
    assert "| test | test, p | test, depth | std |" in heads
    assert "| 0.5000 ± 0.0000 | 0.2500 ± 0.0000 | 0.7500 ± 0.0000 | 0.0000 |" in first


def test_targets_of_classes_have_none_and_those_of_several_sets_dashes():
    """ROC-AUC is averaged over targets wherever it is reported; SIDER has others than Tox21."""
    plan = read_plan(records.CONFIGS / "other_sets.toml")
    jobs = [next(job for job in plan.jobs if job.entry.startswith(name)) for name in ("Tox21", "SIDER")]

    def rows(metric):
        scores = {"valid": {metric: 0.5}, "test": {metric: 0.75}}
        about = {"seed": 0, "metric": metric, **scores, "params": 50, "minutes": 1, "date": "2026-01-02", "commit": "a"}
        about |= {"machine": {"device": "A GPU", "cores": 1, "threads": 1}, "versions": {}, "dirty": False}
        return {job.key: about | {"command": "x", "by_target": {job.entry: scores}} for job in jobs}

    heads = "| model | parameters | valid | test | std | s.e. over repeats | runs | min/run |"
    assert board(plan, rows("rocauc")).splitlines()[2] == heads
    heads, _, first, second, *_ = board(plan, rows("r2")).splitlines()[2:]
    assert [f"test, {job.entry}" for job in jobs] == [head.strip() for head in heads.split("|")[5:7]]
    assert "| 0.7500 | 0.7500 | - |" in first
    assert "| 0.7500 | - | 0.7500 |" in second


def test_so_have_those_on_further_data():
    plan = read_plan(records.CONFIGS / "circuits_whole.toml")
    job, further = plan.jobs[0], plan.jobs[0].config.also[0]
    errors = {"valid": {"mae": 9.0}, "test": {"mae": 0.25}, further: {"mae": 0.75}}
    row = {"seed": 0, "metric": "mae", "valid": {"mae": 1.0}, "test": {"mae": 0.5}, "params": 50, "minutes": 1}
    row |= {"machine": {"device": "A GPU", "cores": 1, "threads": 1}, "versions": {}, "date": "2026-01-02"}
    row |= {"commit": "a", "dirty": False, "command": "x"}
    row |= {"also": {further: {"mae": 2.0}}, "by_target": {"probability": errors}}
    heads, _, first, *_ = board(plan, {job.key: row}).splitlines()[2:]
    assert f"| test | test, probability | {further}, probability | std |" in heads
    assert "| 1.0000 | 0.5000 | 0.2500 | 0.7500 | - |" in first


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("model.trees = 3", "model.tree = 3", "did you mean 'model.trees'"),
        ("model.layers", "model.layer", "did you mean 'model.layers'"),
        ('name = "deep"', 'name = "own"', "a name of its own"),
        ('name = "nav17"', "", "'name' is missing"),
        ("[train]", "[train", "cannot read"),
    ],
)
def test_slips_in_a_config(config, old, new, reason):
    config.write_text(CONFIG.replace(old, new, 1))
    with pytest.raises(ConfigError, match=reason):
        read_plan(config)


def test_further_data_of_each_set_have_a_column():
    """Beside entries that are scored on none; of small errors two digits are shown."""
    plan = read_plan(records.CONFIGS / "transfer.toml")
    jobs = {job.entry: job for job in plan.jobs if job.config.seed == 0}
    own, other = jobs["ring: pLSTM (default)"], jobs["ring: GINE"]
    assert replace(own.config, also=()) == default_config("transfer-ring")
    row = {"seed": 0, "metric": "rmse", "valid": {"rmse": 0.00123}, "test": {"rmse": 0.2}, "params": 50, "minutes": 1}
    row |= {"machine": {"device": "A GPU", "cores": 1, "threads": 1}, "versions": {}, "date": "2026-01-02"}
    row |= {"commit": "a", "dirty": False, "command": "x"}
    table = board(plan, {own.key: row | {"also": {own.config.also[0]: {"rmse": 0.004}}}, other.key: row})
    assert "| ring: pLSTM (default) | 50 | 0.00123 | 0.2000 | 0.00400 | - | - | 1/3 | 1.00 |" in table
    assert "| ring: GINE | 50 | 0.00123 | 0.2000 | - | - | - | 1/3 | 1.00 |" in table


def test_the_committed_configs_keep_their_protocols():
    plans = {path.stem: read_plan(path) for path in records.CONFIGS.glob("*.toml")}
    for entry in plans["nav17"].entries:
        jobs = [job for job in plans["nav17"].jobs if job.entry == entry]
        assert [(job.config.data, job.config.split, job.config.seed) for job in jobs] == [
            ("nav17", "random", seed) for seed in (0, 1, 2)
        ]
    for entry in plans["mutag"].entries:
        jobs = [job for job in plans["mutag"].jobs if job.entry == entry]
        assert [(job.config.seed, job.config.fold) for job in jobs] == list(product((42, 43, 44), range(10)))
        assert {job.config.split for job in jobs} == {"folds"}
    for plan in plans.values():
        assert len({job.key for job in plan.jobs}) == len(plan.jobs)


def test_entries_begin_with_what_is_usual_for_their_data(tmp_path):
    path = tmp_path / "usual.toml"
    sets = '[[set]]\nname = "near"\ndata = "transfer-line"\n[[set]]\nname = "far"\n'
    path.write_text(f'[data]\nname = "digits"\n[train]\nepochs = 3\n{sets}[[entry]]\nname = "a"\n')
    near, far = (job.config for job in read_plan(path).jobs)
    assert near == replace(default_config("transfer-line"), epochs=3)
    assert far == replace(default_config("digits"), epochs=3)


def test_the_command_line(config, tmp_path, capsys):
    arguments = [str(config), "--results", str(tmp_path), "--dry-run"]
    assert leaderboard.main(arguments) == 0
    assert "6 runs, 0 done, 6 to do" in capsys.readouterr().out
    assert leaderboard.main([*arguments, "--only", "depp"]) == 1
    assert "did you mean 'deep'" in capsys.readouterr().err
    assert leaderboard.main([*arguments, "--only", "deep", "--seeds", "1"]) == 0
    assert "6 runs, 0 done, 1 to do" in capsys.readouterr().out
    assert leaderboard.main([*arguments, "--seeds", "9"]) == 1
    assert "seed 9 is none of the config's" in capsys.readouterr().err
