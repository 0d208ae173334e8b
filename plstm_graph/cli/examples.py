"""What stands at the end of the help of a command: an example, and the page to read."""

EXAMPLES = {
    "train": ("--data my.csv --targets y --split scaffold --out runs/mine", "recipes.md, datasets.md"),
    "prepare": ("--data ogbg-molhiv --root DATA --out molhiv.pt", "recipes.md"),
    "predict": ("--checkpoint runs/nav17 --input my.csv --out predicted.csv", "recipes.md"),
    "serve": ("runs/nav17 --port 8000", "recipes.md"),
    "embed": ("--checkpoint runs/nav17 --input my.csv --out embedded.csv", "recipes.md"),
    "evaluate": ("--checkpoint runs/nav17 --data new.csv --targets y", "recipes.md"),
    "blend": ("runs/forest runs/molhiv --ranks --out runs/blend", "recipes.md"),
    "report": ("runs/nav17 runs/gatedgcn --out compared.html", "reports.md, leaderboard.md"),
    "explain": ('--checkpoint runs/nav17 --smiles "CCO" --out ethanol.svg', "explain.md"),
    "export": ("--checkpoint runs/nav17 --out model.pt2", "recipes.md"),
    "datasets": ("--root DATA", "datasets.md"),
    "draw": ('"CC(=O)Oc1ccccc1C(=O)O" --order index --out aspirin.svg', "theory.md"),
}
"""By command, in the order of the help: its words, and pages of ``docs``."""


def epilog(command: str) -> str:
    """As typer prints it below the options: a blank line begins a paragraph."""
    words, pages = EXAMPLES[command]
    return f"Example:\n\nplstm-graph {command} {words}\n\nMore: docs/{pages.replace(', ', ', docs/')}"
