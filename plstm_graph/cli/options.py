"""Options of ``plstm-graph train`` that each set one field of the config."""

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperOption

from plstm_graph.config.names import DATA_SETS, OPTIONS

if TYPE_CHECKING:
    from plstm_graph.train.config import TrainConfig


class Choice(NamedTuple):
    """An option of ``train`` that sets one field of the config."""

    flag: str
    kind: Any
    panel: str
    help: str
    field: str = ""  # where it differs from the flag

    @property
    def name(self) -> str:
        """Name of the parameter."""
        return self.flag.partition("/")[0].removeprefix("--").replace("-", "_")

    def parameter(self) -> inspect.Parameter:
        """As typer wants it; None where it is not given."""
        names = DATA_SETS if self.name == "data" else OPTIONS.get(self.field or self.name, ("", ()))[1]
        option = typer.Option(
            self.flag,
            help=self.help,
            show_default=False,
            rich_help_panel=self.panel,
            autocompletion=lambda incomplete: [name for name in names if name.startswith(incomplete)],
        )
        hint = Annotated[self.kind | None, option]  # type: ignore[name-defined]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


_MODELS = (
    "plstm, gine, gcn, gin, gin-virtual, gat, gatedgcn, gatedgcn-edges, gps, dmpnn, lstm-gnn, adgn, dagnn, dvae, "
    "dag-transformer, flowerformer or fingerprint; for images plstm-vision, vit, cnn or efficientnet."
)
_DATA, _MODEL, _IMAGES, _FIT = "Data", "Model", "Models of images", "Training"
CHOICES = (
    Choice("--data", str, _DATA, "A name (see datasets), a CSV file, images:FOLDER, or what prepare wrote."),
    Choice("--root", str, _DATA, "Folder with public data, as root/TUDataset/NAME/raw; only read."),
    Choice("--also", list[str], _DATA, "Further data on whose test part the best weights are scored; repeatable."),
    Choice("--targets", list[str], _DATA, "Label column or pattern: NR-*, * (all), !id (all but id); repeatable."),
    Choice("--smiles-column", str, _DATA, "Column of the CSV with the molecules."),
    Choice("--task", str, _DATA, "regression, binary or multiclass (default: from the labels)."),
    Choice(
        "--featuriser", str, _DATA, "Features of molecules: cip-molecule, or ogb-molecule with OGB's chirality tags."
    ),
    Choice(
        "--descriptors",
        list[str],
        _DATA,
        "Read beside the graph: rdkit2d, morgan-counts, a --fingerprint, or a CSV file with SMILES; repeatable.",
    ),
    Choice(
        "--censored",
        bool,
        _DATA,
        "Labels may be bounds such as >10 or <0.1; only a prediction on their wrong side is an error.",
    ),
    Choice(
        "--metric", str, _DATA, "Metric that validation is judged by: r2, rmse, mae, pearson; rocauc, ap, accuracy; f1."
    ),
    Choice("--loss", str, _FIT, "Loss of regression: mse, mae or huber (default: mse, or mae with that metric)."),
    Choice("--class-weights", bool, _FIT, "Give rare classes the same total weight as common ones."),
    Choice(
        "--split", str, _DATA, "official, random, scaffold, folds, scaffold-folds; column, group, group-folds or time."
    ),
    Choice(
        "--split-column",
        str,
        _DATA,
        "Column with train, valid and test; for --split group or time, the groups or times.",
    ),
    Choice("--test-data", str, _DATA, "File of molecules to test on, instead of a part of --data."),
    Choice("--split-seed", int, _DATA, "Seed of the split (default: --seed)."),
    Choice("--fold", int, _DATA, "Which fold, with --split folds."),
    Choice(
        "--group-repeats/--no-group-repeats",
        bool,
        _DATA,
        "Keep repeats of a molecule in the same part (random, folds).",
    ),
    Choice("--model", str, _MODEL, _MODELS, "model.model"),
    Choice(
        "--fingerprint",
        str,
        _MODEL,
        "What the forest reads: morgan (ECFP), morgan-features (FCFP), maccs, atom-pairs or torsions.",
        "model.fingerprint",
    ),
    Choice("--budget", str, _MODEL, "Number of parameters, for example 300k; sets the width."),
    Choice("--width", int, _MODEL, "Channels.", "model.width"),
    Choice("--layers", int, _MODEL, "Number of blocks; 0: every node (or patch) is read alone.", "model.layers"),
    Choice("--heads", int, _MODEL, "Heads per block.", "model.heads"),
    Choice("--modes", str, _MODEL, "Mode of each block in turn, repeated as needed: P, D, PD, ...", "model.modes"),
    Choice("--directions", str, _MODEL, "Reading direction: both, along, against or alternating.", "model.directions"),
    Choice("--transition", str, _MODEL, "tanh, or saturating for long paths.", "model.transition"),
    Choice("--output-norm", str, _MODEL, "Norm of every head of pLSTM: rms, soft, log or none.", "model.output_norm"),
    Choice(
        "--open-gates/--no-open-gates", bool, _MODEL, "Begin with the gates of pLSTM half open.", "model.open_gates"
    ),
    Choice(
        "--local",
        str,
        _MODEL,
        "Local branch beside pLSTM: gine, dir-gine, gcn, gat, gatedgcn, gatedgcn-edges, dmpnn or none.",
        "model.local",
    ),
    Choice("--norm", str, _MODEL, "Norm of a block: batch, rms, layer or none.", "model.norm"),
    Choice(
        "--expansion",
        float,
        _MODEL,
        "Width of the feed-forward layers as a multiple of --width; 0: none.",
        "model.expansion",
    ),
    Choice("--dropout", float, _MODEL, "Dropout.", "model.dropout"),
    Choice(
        "--pooling",
        str,
        _MODEL,
        "mean, sum, max or attention over nodes, mean over sources or sinks, or several: mean+sum.",
        "model.pooling",
    ),
    Choice("--jk", str, _MODEL, "Read out the last block, or all of them: last or cat.", "model.jk"),
    Choice("--edge-readout/--no-edge-readout", bool, _MODEL, "Read out edges as well as nodes.", "model.edge_readout"),
    Choice(
        "--head-norm", str, _MODEL, "Norm of the head's hidden layers: none, batch, layer or rms.", "model.head_norm"
    ),
    Choice("--output-gate/--no-output-gate", bool, _MODEL, "A sigmoid gate on each head.", "model.output_gate"),
    Choice("--rings/--no-rings", bool, _MODEL, "Sizes of rings as further features.", "model.rings"),
    Choice("--rwse", int, _MODEL, "Steps of the random-walk encoding (RWSE); 0 for none.", "model.rwse"),
    Choice("--lap-pe", int, _MODEL, "Eigenvectors of the Laplacian as encoding (LapPE); 0 for none.", "model.lap_pe"),
    Choice("--edge-features/--no-edge-features", bool, _MODEL, "Use edge features.", "model.edge_features"),
    Choice(
        "--both-ways/--no-both-ways",
        bool,
        _MODEL,
        "One-hop networks also pass messages against the edges.",
        "model.both_ways",
    ),
    Choice(
        "--edge-values/--no-edge-values",
        bool,
        _MODEL,
        "Edge features enter values, not only gates.",
        "model.edge_values",
    ),
    Choice(
        "--virtual-node/--no-virtual-node",
        bool,
        _MODEL,
        "A further node that is joined to all others; the default for pLSTM on molecules.",
        "model.virtual_node",
    ),
    Choice(
        "--order",
        str,
        _MODEL,
        "Orientation: canonical (also -bfs, -dfs, -center), index, bfs, dfs, degree, random or given.",
        "model.order",
    ),
    Choice(
        "--test-orientations",
        int,
        _MODEL,
        "With --order random: how many orientations to average.",
        "model.test_orientations",
    ),
    Choice("--init-from", str, _FIT, "Checkpoint, or folder of a run, whose weights training starts from."),
    Choice("--ensemble", int, _FIT, "Number of networks whose predictions are averaged; their spread is reported."),
    Choice("--size", str, _IMAGES, "Width and heads: tiny, small or base.", "model.size"),
    Choice("--patch-size", int, _IMAGES, "Side length of a patch in pixels.", "model.patch_size"),
    Choice("--position", str, _IMAGES, "Position embedding of patches: learned or none.", "model.position"),
    Choice("--read-out", str, _IMAGES, "What is read out: corners, or the mean over patches.", "model.read_out"),
    Choice(
        "--chirality",
        str,
        _IMAGES,
        "Which of the two turns D mode leaves open: alternating, left or right.",
        "model.chirality",
    ),
    Choice("--gate-inputs", str, _IMAGES, "What gates read: slices, all or none.", "model.gate_inputs"),
    Choice("--epochs", int, _FIT, "Passes over the training part."),
    Choice("--batch-size", int, _FIT, "Graphs per step and device."),
    Choice("--lr", float, _FIT, "Highest learning rate."),
    Choice("--weight-decay", float, _FIT, "Weight decay of AdamW."),
    Choice("--warmup-epochs", int, _FIT, "Epochs of linear warm-up, before a cosine schedule."),
    Choice("--clip", float, _FIT, "Largest norm of the gradient; 0: no clipping."),
    Choice(
        "--ema", float, _FIT, "Decay, such as 0.99, of a moving average of the weights that is used in their place."
    ),
    Choice("--patience", int, _FIT, "Stop after so many epochs without a better validation score; 0: never."),
    Choice("--seed", int, _FIT, "Seed of weights, data order, dropout and split."),
    Choice("--compile", bool, _FIT, "Compile training steps: a minute longer at first, then faster."),
    Choice(
        "--capture/--no-capture", bool, _FIT, "Run passes as CUDA graphs (default: where that is possible and faster)."
    ),
    Choice("--accelerator", str, _FIT, "auto, cpu, gpu, ..."),
    Choice("--devices", str, _FIT, "Number of devices, or which ones."),
    Choice("--num-nodes", int, _FIT, "Number of machines."),
    Choice("--precision", str, _FIT, "32-true, bf16-mixed, ..."),
)


def with_choices(command: Callable[..., None]) -> Callable[..., None]:
    """Puts :data:`CHOICES` in place of ``**given``."""
    parameters = list(inspect.signature(command).parameters.values())[:-1]
    signature = inspect.Signature([*parameters, *(choice.parameter() for choice in CHOICES)])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return command


def command_of(config: "TrainConfig", series: Mapping[str, Sequence[int]]) -> str:
    """The command that makes a run, or a series with its ``seeds`` and ``folds``, from nothing."""
    from plstm_graph.config.architectures import unread
    from plstm_graph.train.config import TrainConfig, flat, override
    from plstm_graph.train.defaults import default_config

    flags = {choice.field or choice.name: choice.flag for choice in CHOICES}
    decided = {"out", *(name[:-1] for name in series), *(("model.width",) if config.budget else ())}
    words = ["plstm-graph", "train"]
    model = config.model.model
    usual = default_config(config.data, model)
    own = {"data": TrainConfig.data, "model.model": usual.model.model}
    defaults = flat(override(usual, {"model.model": model})) | own
    for name, value in flat(config).items():
        if value == defaults[name] or name in decided:
            continue
        if name.startswith("model.") and unread(model, name.removeprefix("model.")):
            continue
        flag = flags.get(name)
        if flag is None:
            words += ["--set", f"{name}={value}"]
        elif isinstance(value, bool):
            words.append(flag.split("/")[not value])
        else:
            words += [word for each in (value if isinstance(value, tuple) else [value]) for word in (flag, str(each))]
    for name, numbers in series.items():
        words += [f"--{name}", ",".join(map(str, numbers))]
    return shlex.join([*words, "--out", str(config.out)])


class WithDefaults(TyperCommand):
    """Its help shows the defaults of the config, which is not imported before."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it."""
        from plstm_graph.config.models import ForestConfig, ModelConfig, VisionConfig
        from plstm_graph.train.config import TrainConfig, flat

        of_models = (flat(replace(TrainConfig(), model=model())) for model in (ForestConfig, VisionConfig, ModelConfig))
        defaults = {name: value for each in of_models for name, value in each.items()}
        fields = {choice.name: choice.field or choice.name for choice in CHOICES}
        for option in self.params:
            default = defaults[fields[option.name]] if option.name in fields else None
            if isinstance(option, TyperOption) and default not in (None, ()):
                option.default, option.show_default = default, True
        super().format_help(ctx, formatter)
