"""The arguments and options of the `tunet` command: their types, bounds and words of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from tunet_lib.config import Precision, Preset, Windows

Data = Annotated[
    Path,
    typer.Argument(help="A folder in the layout of KiTS19, 21 or 23, or nnU-Net: case_00000/…"),
]
CystAs = Annotated[
    Optional[Literal["kidney"]],  # noqa: UP045 (Typer on Python 3.10)
    typer.Option(help="What the label 3, cyst, counts as; KiTS21 and KiTS23 have it."),
]
LeaveOut = Annotated[
    Optional[list[str]],  # noqa: UP045 (Typer on Python 3.10)
    typer.Option(help="A case that is not to be used, such as case_00042; may be given again."),
]
RunFolder = Annotated[Path, typer.Argument(help="The run folder: all that is made goes there.")]
PresetOption = Annotated[
    Preset, typer.Option(help="paper: Vu et al. 2019. course: trains on two cores.")
]
ConfigFile = Annotated[
    Optional[Path],  # noqa: UP045 (Typer on Python 3.10)
    typer.Option("--config", help="A configuration saved as JSON, in place of a preset."),
]
Epochs = Annotated[Optional[int], typer.Option(help="At most so many epochs.")]  # noqa: UP045
PrecisionOption = Annotated[
    Optional[Precision],  # noqa: UP045
    typer.Option(
        help="Type that training computes in; bfloat16 is for GPUs and for processors with AMX or "
        "AVX512-BF16, and many times slower on others."
    ),
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes; 0: one a core, as far as memory allows.")
]
LabelsOnly = Annotated[bool, typer.Option("--labels-only", help="Leave the CTs out.")]
Jobs = Annotated[
    int,
    typer.Option(min=0, help="Trainings at a time; 0: one a GPU, or one a core, at most 4."),
]
FoldJobs = Annotated[
    int, typer.Option("--jobs", min=1, help="Folds at a time, each in a process of its own.")
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Windows predicted at a time; fewer take less memory.")
]
Complete = Annotated[
    bool, typer.Option("--complete", help="End with status 1 unless every training is complete.")
]
Variants = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--variant", help="This one only; may be given again."),
]
Folds = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option("--fold", help="This fold only, from 0; may be given again."),
]
Here = Annotated[bool, typer.Option("--here", help="In this process, without a bar.")]
TaskNumber = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--task",
        min=0,
        help="Train the one of this number only, from 0, in this process; see `tunet status`.",
    ),
]

PhantomFolder = Annotated[Path, typer.Argument(help="Where to write the cases.")]
Count = Annotated[int, typer.Option(min=1, help="How many cases.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")]
Size = Annotated[Literal["course", "real"], typer.Option(help="128x128 or 512x512 pixels a slice.")]

DownloadFolder = Annotated[Path, typer.Argument(help="Where to put kits.json and case_00000/…")]
Cases = Annotated[str, typer.Option(help="Such as 0-20, or 3,7,160.")]
Files = Annotated[int, typer.Option(min=1, help="Files at a time.")]

Cts = Annotated[
    list[Path],
    typer.Argument(help="Abdominal CTs: files, folders of DICOM, folders of files."),
]
Output = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--output",
        "-o",
        help="The label map, or a folder for those of several CTs; default: CT_label.nii.gz here.",
    ),
]
Format = Annotated[
    Literal["nii.gz", "nii", "nrrd", "dcm"],
    typer.Option(help="Of label maps that are named after their CTs; dcm: DICOM SEG."),
]
Report = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="A CSV to write: a line for each CT, with volumes and warnings."),
]
Predicted = Annotated[Path, typer.Argument(help="A folder of label maps, named after their cases.")]
Truth = Annotated[
    Path, typer.Argument(help="A folder of the true ones: case_00000/segmentation.nii.gz, or flat.")
]
Against = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Label maps of another system, for the difference case by case."),
]
ScoresCsv = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="A CSV to write: a line for each case."),
]
WhichSeries = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--series", help="Of a folder of DICOM: number in its list, or UID."),
]
NoTumorRule = Annotated[
    bool,
    typer.Option("--no-tumor-rule", help="Where no tumor is found, do not call all a tumor."),
]
Models = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="A folder of trained networks; default: those for CTs of any look."),
]
WhichWindows = Annotated[
    Windows,
    typer.Option(help="Which ones: all; those at L-Net's mask; or fewer, over the box around it."),
]

OnnxFolder = Annotated[
    Path, typer.Option("--onnx", help="Where to write the .onnx files and networks.json.")
]
ExportVariants = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--variant", help="Export this one only; may be given again."),
]
Half = Annotated[
    bool,
    typer.Option("--half", help="Store weights as float16: half the size, nearly the same maps."),
]
