"""What installs the package says the same everywhere: extras, the conda recipe, the Dockerfile."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {"torch": "pytorch", "torch-geometric": "pytorch_geometric", "matplotlib": "matplotlib-base"}
NOT_FOR_CPU_USERS = {"all", "dev", "docs", "scatter", "graphgym", "loggers"}


def test_all_is_what_a_cpu_user_needs():
    (listed,) = PROJECT["optional-dependencies"]["all"]
    extras = set(re.search(r"\[(.*)\]", listed)[1].split(","))
    assert extras == PROJECT["optional-dependencies"].keys() - NOT_FOR_CPU_USERS


def test_the_conda_recipe_asks_for_what_pip_would():
    extras = PROJECT["optional-dependencies"]
    named = [
        *PROJECT["dependencies"],
        *(line for name, lines in extras.items() if name not in NOT_FOR_CPU_USERS for line in lines),
    ]
    wanted = {f"{CONDA.get(name, name)} >={version}" for name, version in (line.split(">=") for line in named)}
    recipe = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    run = recipe[recipe.index("  run:") : recipe.index("\ntest:")]
    assert set(re.findall(r"- (.+)", run)) - {"python >=3.11"} == wanted


def test_the_image_copies_what_the_build_reads():
    copied = {
        name
        for line in re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
        for name in line.split()
    }
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "plstm_graph"} == copied
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied
