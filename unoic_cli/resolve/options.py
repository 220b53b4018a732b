"""Options that several commands share, each said once, in groups that commands take as a whole; see `Option`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

from unoic_cli.fusions import DEFAULT, FUSIONS, listed
from unoic_cli.options import Option, group

if TYPE_CHECKING:
    import os

    from unoic_cli.calibrations.calibration import Calibration, Order
    from unoic_cli.calibrations.prior import PriorLike, Unseen
    from unoic_cli.formats.block import Kind
    from unoic_cli.metrics import Absent
from unoic_cli.data.steps import Progress

MetricsOption: TypeAlias = Annotated[
    str | Sequence[str] | None,
    Option(
        "--metrics",
        "LIST",
        "What tables show: some of acc, macc, miou, f1, top5, gmean, kappa, mcc, many, medium, few, nll, ece ..., or "
        "of one class recall[NAME] (all: docs/metrics.md). Default: acc,macc,miou,f1, which JSON has in any case.",
        values=("<metrics>",),
    ),
]
ShotsOption: TypeAlias = Annotated[
    str | Sequence[int] | None,
    Option(
        "--shots",
        "FEW:MANY",
        "Training samples: classes of less than FEW are few-shot, of more than MANY many-shot. Default: 20:100.",
        rare=True,
    ),
]
AbsentOption: TypeAlias = Annotated[
    "Absent",
    Option(
        "--absent",
        "RULE",
        "Classes that are absent: reference (left out when in neither truth nor prediction), truth-only, or zero.",
        default="reference",
        takes='{"reference", "truth-only", "zero"}',
        rare=True,
    ),
]
ClusterOption: TypeAlias = Annotated[
    str | None,
    Option(
        "--cluster",
        "WHAT",
        "What is independent, for standard errors and intervals: unit, image or group. Default: images where "
        "there are some.",
        rare=True,
        values=("unit", "image", "group"),
    ),
]
RequireOption: TypeAlias = Annotated[
    str | None,
    Option(
        "--require",
        "TEXT",
        "What the result must show, joined by and, such as 'macc>=0.7 and gain.macc>0': metrics, their gain over the "
        "scores as they are, and the ends of its 95 % interval (gain.macc.low). Exit code 1 where it does not hold; "
        "what the command writes is written all the same.",
    ),
]
ForceOption: TypeAlias = Annotated[
    bool, Option("--force", None, "Replace outputs that exist.", says="how", panel="Output")
]
PageOption: TypeAlias = Annotated[
    "str | os.PathLike[str] | None",
    Option(
        "--page", "FILE", "Write the result as one HTML file, to look at and to send.", says="where", panel="Output"
    ),
]
AllowExternalOption: TypeAlias = Annotated[
    bool,
    Option(
        "--allow-external",
        None,
        "Follow HDF5 external links, external storage and virtual datasets.",
        panel="Data",
        rare=True,
    ),
]
LogitsKeyOption: TypeAlias = Annotated[
    str | None,
    Option("--logits-key", "NAME", "Array (or column) with the scores, where names do not tell.", panel="Data"),
]
LabelsKeyOption: TypeAlias = Annotated[
    str | None,
    Option("--labels-key", "NAME", "Array (or column) with the labels, where names do not tell.", panel="Data"),
]
LabelsFileOption: TypeAlias = Annotated[
    "str | os.PathLike[str] | None",
    Option(
        "--labels",
        "FILE",
        "File with the labels, where they lie elsewhere (FILE::ARRAY names one in it); a folder, or a name with {stem} "
        "in it, has one for each input.",
        panel="Data",
    ),
]
KindOption: TypeAlias = Annotated[
    "Kind | None",
    Option(
        "--kind",
        "KIND",
        "What the scores are: logits, log_probs or probs. Default: by their name, else by their values.",
        takes='{"logits", "log_probs", "probs"}',
        panel="Data",
    ),
]
DtypeOption: TypeAlias = Annotated[
    str,
    Option(
        "--dtype",
        "TYPE",
        "Round scores to float16, bfloat16 or float32, and count the decisions that this changes; or keep them.",
        default="keep",
        values=("keep", "float16", "bfloat16", "float32"),
    ),
]
ClassAxisOption: TypeAlias = Annotated[
    int | None,
    Option(
        "--class-axis",
        "AXIS",
        "Of 4-D scores: 1 for (N, K, H, W), -1 for (N, H, W, K), 0 for the (K, Z, Y, X) of a volume in npz or npy, "
        "where the file does not tell.",
        panel="Data",
        rare=True,
        values=("1", "-1", "0"),
    ),
]
ThreadsOption: TypeAlias = Annotated[
    int | None,
    Option(
        "--threads",
        "N",
        "Worker threads. Default: what the machine gives this process.",
        says="how",
        panel="Large runs",
    ),
]
TellOption: TypeAlias = Annotated[
    "Callable[[str], None] | None", Option("", None, "Called with each note as it comes.", says="how")
]
ProgressOption: TypeAlias = Annotated[
    "Progress | None", Option("", None, "Called with bytes read and bytes in all.", says="how", takes="callable")
]
TargetPriorOption: TypeAlias = Annotated[
    "PriorLike",
    Option(
        "--target-prior",
        "PRIOR",
        "Class frequencies wanted; as --source-prior. Default: uniform.",
        takes="str, path, Prior, (K,) array or mapping by class",
        panel="Method",
        values=("uniform", "labels"),
    ),
]
DeltaPowerOption: TypeAlias = Annotated[
    float | None,
    Option("--delta-power", "P", "delta ** P, where delta comes from statistics.", panel="Method", rare=True),
]
WeightsOption: TypeAlias = Annotated[
    Any,
    Option(
        "--weights",
        "W,...",
        "Of the modalities, for a fusion that weighs them: rgb=2,depth=1.",
        many=True,
        takes="sequence of number, str or mapping by modality",
        panel="Method",
    ),
]
UnseenOption: TypeAlias = Annotated[
    "Unseen | None",
    Option(
        "--unseen",
        "POLICY",
        "Classes of prior zero: mask (never predicted), floor, smooth or error. Default: mask.",
        takes='{"mask", "floor", "smooth", "error"}',
        panel="Method",
        rare=True,
    ),
]


@group("Data")
class SplitOptions(TypedDict, total=False):
    """Which samples."""

    split: Annotated[str | None, Option("--split", "NAME", "Only the samples of this split.", values=("<split>",))]


@group("Data")
class IgnoreOptions(TypedDict, total=False):
    """Which labels."""

    ignore_index: Annotated[
        "Sequence[int]",
        Option(
            "--ignore-index",
            "LABEL",
            "Leave units with this label out (repeatable). 255, -1 and -100 outside the classes always are.",
            default=(),
        ),
    ]


@group("Data")
class ArrayOptions(TypedDict, total=False):
    """What arrays and columns are, where their names do not tell."""

    allow_external: AllowExternalOption
    logits_key: LogitsKeyOption
    labels_key: LabelsKeyOption
    labels_file: LabelsFileOption
    kind: KindOption
    class_axis: ClassAxisOption


@group("Data")
class FileOptions(ArrayOptions, total=False):
    """How files are read."""

    threads: ThreadsOption
    memory: Annotated[
        int | str | None,
        Option(
            "--memory",
            "SIZE",
            "Bound of the buffers, such as 256MB. Default: 64MB a thread.",
            says="how",
            panel="Large runs",
            rare=True,
        ),
    ]
    tell: TellOption
    progress: ProgressOption


@group("Data")
class DataOptions(SplitOptions, IgnoreOptions, FileOptions, total=False):
    """Options of every command that reads the labels of logits files."""


@group("Method")
class CalibrationOptions(TypedDict, total=False):
    """All that a method is, in a file."""

    calibration: Annotated[
        "str | os.PathLike[str] | Calibration | None",
        Option("--calibration -c", "FILE", "Apply a calibration (JSON)."),
    ]


@group("Method")
class LambdaOptions(TypedDict, total=False):
    """How strongly scores are rebalanced."""

    lam: Annotated[
        Any,
        Option(
            "--lambda -l",
            "L",
            "Apply this lambda, with the priors below; rgb=0.3,depth=0.6 for each modality.",
            many=True,
            takes="number, str or mapping by modality",
        ),
    ]


@group("Method")
class DeltaOptions(TypedDict, total=False):
    """How scores are flattened."""

    delta: Annotated[
        Any,
        Option(
            "--delta",
            "SPEC",
            "Factor of the scores: statistics written by fit-delta, fit (on this input), none, or a file of "
            "factors (FILE::DATASET, npy); NAME=SPEC for a modality (repeatable). Default: what the file stores.",
            many=True,
            takes="str, path, DeltaStatistics, array or mapping by modality",
            values=("fit", "none"),
        ),
    ]
    delta_power: DeltaPowerOption


@group("Method")
class RebalanceOptions(TypedDict, total=False):
    """How scores are scaled, and between which priors they are rebalanced."""

    source_prior: Annotated[
        Any,
        Option(
            "--source-prior",
            "PRIOR",
            "Class frequencies in training: uniform, labels, mean-posterior, a comma list, a JSON/CSV/TSV file, "
            "or a logits file whose labels are counted; NAME=PRIOR for a modality (repeatable). Default: what the "
            "file stores, else its labels.",
            many=True,
            takes="str, path, Prior, (K,) array, mapping by class, or mapping of these by modality",
            values=("uniform", "labels", "mean-posterior"),
        ),
    ]
    target_prior: TargetPriorOption
    unseen: UnseenOption
    temperature: Annotated[
        Any,
        Option(
            "--temperature",
            "T",
            "Divide the scores by T; rgb=1.5,depth=2 for each modality.",
            many=True,
            takes="number, str or mapping by modality",
        ),
    ]
    offsets: Annotated[
        Any,
        Option(
            "--offsets",
            "B",
            "Add a number to each class's score: a comma list, or a JSON/CSV/TSV file; NAME=B for a modality "
            "(repeatable). Where lambda is searched, fit: from the labels, beside lambda (20 of each class or more).",
            many=True,
            takes="(K,) array, str, path, mapping by class, or mapping of these by modality",
        ),
    ]


@group("Method")
class FusionOptions(TypedDict, total=False):
    """How modalities are fused."""

    order: Annotated[
        "Order | None",
        Option(
            "--order",
            "ORDER",
            "flatten-first, delta*z + lambda*s (default), or rebalance-first, delta*(z + lambda*s).",
            takes='{"flatten-first", "rebalance-first"}',
        ),
    ]
    fusion: Annotated[
        str | None,
        Option(
            "--fusion",
            "HOW",
            f"How modalities are fused: {listed([f'{DEFAULT} (default)', *FUSIONS[1:]])}.",
            values=FUSIONS,
        ),
    ]
    weights: WeightsOption


@group("Method")
class ScoreOptions(RebalanceOptions, DeltaOptions, FusionOptions, total=False):
    """All that a method is, but its lambda."""


@group("Method")
class MethodOptions(CalibrationOptions, LambdaOptions, ScoreOptions, total=False):
    """How scores are flattened, rebalanced and fused."""


StrictOption: TypeAlias = Annotated[
    bool, Option("--strict", None, "A warning is an error (exit code 65), and nothing is written.", panel="Output")
]
CheckpointOption: TypeAlias = Annotated[
    str | None,
    Option(
        "--checkpoint",
        "FILE",
        "Save the work now and then, and when a signal ends it (exit code 75). Removed in the end.",
        says="where",
        panel="Large runs",
    ),
]
EveryOption: TypeAlias = Annotated[
    str | float | None,
    Option("--every", "TIME", "How often --checkpoint saves. Default: 60s.", says="how", panel="Large runs", rare=True),
]
ResumeOption: TypeAlias = Annotated[
    bool, Option("--resume", None, "Go on from --checkpoint, if it is there.", says="how", panel="Large runs")
]


class PartOptions(TypedDict, total=False):
    """How a command is cut and kept that writes a file as large as the data."""

    shard: Annotated[
        str | None,
        Option(
            "--shard",
            "I/N",
            "Write the I-th of N parts (equal numbers of rows, whole images) to STEM.000I-of-000N.SUFFIX; auto: "
            "the place of this task in its SLURM array.",
            says="how",
            panel="Large runs",
        ),
    ]
    checkpoint: CheckpointOption
    every: EveryOption
    resume: ResumeOption
