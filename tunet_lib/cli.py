"""The `tunet` command: each step of the method, and all of them in a row."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunet_lib import options, steps
from tunet_lib.allowance import default_workers
from tunet_lib.config import Config, Precision, Preset
from tunet_lib.files import DataError, check_table_name
from tunet_lib.screen import (
    bar,
    bytes_bar,
    complain,
    failures_at_the_end,
    make_streams_safe,
    notes_at_the_end,
    say,
    show_table,
    warn,
)

if TYPE_CHECKING:
    from tunet_lib.batch import Outcome

app = typer.Typer(
    help="Segment kidneys and kidney tumors in CT, after Vu et al. 2019 (KiTS19).\n\n"
    "For teaching and research. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def phantom(
    folder: options.PhantomFolder,
    count: options.Count = 80,
    seed: options.Seed = 2019,
    size: options.Size = "course",
) -> None:
    """Make synthetic CTs with labels, in KiTS19's layout."""
    from tunet_lib.phantom import write_phantoms

    with bar("phantoms", count) as advance:
        write_phantoms(folder, count, seed, size=size, progress=lambda *_: advance())
    say(f"{count} phantoms in {folder}")


@app.command()
def download(
    folder: options.DownloadFolder,
    cases: options.Cases = "0-209",
    labels_only: options.LabelsOnly = False,
    jobs: options.Files = 4,
) -> None:
    """Download KiTS19: many gigabytes, or 65 MB without the CTs. Start it again to go on.

    KiTS19 is under CC BY-NC-SA 4.0: for non-commercial use.
    """
    from tunet_lib.download import download_kits19, parse_cases

    with failures_at_the_end() as failures, bytes_bar("download") as (on_size, on_bytes):
        failures |= download_kits19(
            folder,
            parse_cases(cases),
            labels_only=labels_only,
            workers=jobs,
            on_size=on_size,
            on_bytes=on_bytes,
        )
    say(f"{folder}: complete")


@app.command()
def check(
    data: options.Data,
    labels_only: options.LabelsOnly = False,
    cyst_as: options.CystAs = None,
    workers: options.Workers = 0,
) -> None:
    """Open and verify every file of a data folder; list what is wrong."""
    from tunet_lib.check import check_folder

    with bar("check", len(steps.cases_of(data))) as advance:
        count, problems = check_folder(
            data,
            labels_only=labels_only,
            cyst_as_kidney=cyst_as is not None,
            workers=workers or default_workers(),
            on_case=lambda _: advance(),
        )
    if problems:
        rows = [((p.case_id, p.file, p.what), not p.is_strange_only) for p in problems]
        show_table(("case", "file", "what is wrong, or strange"), rows)
    if not (bad := {p.case_id for p in problems if not p.is_strange_only}):
        return say(f"{count} cases, and every file is good")
    complain("check", f"{len(bad)} of {count} cases have problems")
    raise typer.Exit(1)


@app.command()
def prepare(
    data: options.Data,
    run_folder: options.RunFolder,
    preset: options.PresetOption = "course",
    config: options.ConfigFile = None,
    epochs: options.Epochs = None,
    precision: options.PrecisionOption = None,
    cyst_as: options.CystAs = None,
    leave_out: options.LeaveOut = None,
    workers: options.Workers = 0,
) -> None:
    """Start a run: bring every case to the grid, and deal the cases into folds."""
    chosen = _config(preset, config, epochs, precision)
    steps.prepare(data, run_folder, chosen, without=leave_out, cyst_as=cyst_as, workers=workers)


@app.command()
def train(
    run_folder: options.RunFolder,
    variant: options.Variants = None,
    fold: options.Folds = None,
    jobs: options.Jobs = 0,
    here: options.Here = False,
    task: options.TaskNumber = None,
) -> None:
    """Train the networks; those that are complete are kept, the rest go on where they were."""
    with failures_at_the_end() as failures:
        if here or task is not None:
            failures |= steps.train_here(run_folder, variant, fold, number=task)
        else:
            failures |= steps.train(run_folder, variant, fold, jobs=jobs)


@app.command()
def plan(run_folder: options.RunFolder, variant: options.Variants = None) -> None:
    """Time some steps on this machine: hours, memory and disk before you spend them."""
    steps.plan(run_folder, variant)


@app.command()
def status(
    run_folder: options.RunFolder,
    variant: options.Variants = None,
    fold: options.Folds = None,
) -> None:
    """Show where each training stands: done, running, queued, stopped, broken, missing."""
    steps.status(run_folder, variant, fold)


@app.command()
def predict(
    cts: options.Cts,
    output: options.Output = None,
    models: options.Models = None,
    format: options.Format = "nii.gz",
    series: options.WhichSeries = None,
    report: options.Report = None,
    no_tumor_rule: options.NoTumorRule = False,
    batch_size: options.BatchSize = 4,
    windows: options.WhichWindows = "mask",
) -> None:
    """Segment CTs: label maps (1 kidney, 2 tumor) with their own shape and affine."""
    from tunet_lib.batch import plan, predict_each, write_report
    from tunet_lib.predict import WIDE_WEIGHTS, Networks

    with notes_at_the_end():
        jobs, outcomes = plan(cts, output, suffix=f".{format}"), []
    check_table_name(report)
    if models is None:
        warn(
            "These networks were trained on synthetic CTs of many looks and have seen no patient: "
            "they miss tumors and invent some. Train on KiTS19, and name your own with --models."
        )
    networks = Networks(models or WIDE_WEIGHTS)
    how = {"windows": windows, "batch_size": batch_size, "tumor_rule": not no_tumor_rule}
    with failures_at_the_end() as failures:
        with bar("networks", len(networks) * len(jobs)) as advance:
            for outcome in predict_each(jobs, networks, series=series, on_part=advance, **how):
                outcomes.append(outcome)
                if report is not None:
                    write_report(report, outcomes)
                if outcome.failure:
                    failures[str(outcome.job.ct)] = outcome.failure
                if len(jobs) > 1:  # at once; of a single CT when the bar is done
                    _tell(outcome)
        if len(jobs) == 1 and not failures:
            _tell(outcomes[0])


@app.command()
def export(
    onnx: options.OnnxFolder,
    models: options.Models = None,
    variant: options.ExportVariants = None,
    half: options.Half = False,
) -> None:
    """Write trained networks as ONNX files, which run in a browser and without Keras."""
    from tunet_lib.export import export_onnx
    from tunet_lib.predict import WIDE_WEIGHTS

    for path in export_onnx(models or WIDE_WEIGHTS, onnx, variants=variant, half=half):
        say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def evaluate(
    run_folder: options.RunFolder,
    jobs: options.FoldJobs = 1,
    batch_size: options.BatchSize = 4,
    complete: options.Complete = False,
) -> None:
    """Score every case by the models that never saw it: scores.csv."""
    with failures_at_the_end() as failures:
        failures |= steps.evaluate(run_folder, batch_size, jobs=jobs)
        if not steps.tell_untrained(run_folder) and complete:
            failures[str(run_folder)] = "not every training is complete"


@app.command()
def table(run_folder: options.RunFolder, complete: options.Complete = False) -> None:
    """Print Table 1 beside the paper's numbers: table_1.csv."""
    if not steps.table(run_folder) and complete:
        raise typer.Exit(1)


@app.command()
def score(
    predicted: options.Predicted,
    truth: options.Truth,
    against: options.Against = None,
    out: options.ScoresCsv = None,
    cyst_as: options.CystAs = None,
) -> None:
    """Score a folder of label maps against the true ones, and beside another folder's."""
    check_table_name(out)
    steps.score(predicted, truth, against=against, out=out, cyst_as_kidney=bool(cyst_as))


@app.command()
def run(
    data: options.Data,
    run_folder: options.RunFolder,
    preset: options.PresetOption = "course",
    config: options.ConfigFile = None,
    epochs: options.Epochs = None,
    precision: options.PrecisionOption = None,
    jobs: options.Jobs = 0,
    variant: options.Variants = None,
    fold: options.Folds = None,
    batch_size: options.BatchSize = 4,
    cyst_as: options.CystAs = None,
    leave_out: options.LeaveOut = None,
) -> None:
    """Do it all: prepare, train, evaluate, table.

    The preset course takes half a day on two cores, or more, by the number of cases. Run it
    again, and it goes on where it was.
    """
    from tunet_lib.runs import check_tasks

    with failures_at_the_end() as failures:
        chosen = _config(preset, config, epochs, precision)
        check_tasks(chosen, variant, fold)  # before hours are spent
        steps.prepare(data, run_folder, chosen, without=leave_out, cyst_as=cyst_as)
        failures |= steps.train(run_folder, variant, fold, jobs=jobs)
        failures |= steps.evaluate(run_folder, batch_size)
        steps.table(run_folder)


def main() -> None:
    """Run the command; bad data, or a bad disk, ends it with one line and exit status 1."""
    make_streams_safe()
    # Processes that are started from here do not look for modules where the user happens to be.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        app()
    except (DataError, OSError, MemoryError) as error:
        complain("Error", str(error) or "not enough memory")
        sys.exit(1)


def _tell(outcome: Outcome) -> None:
    for note in outcome.notes:
        warn(note)
    if outcome.failure:
        complain(str(outcome.job.ct), outcome.failure)
    else:
        say(str(outcome))


def _config(
    preset: Preset,
    path: Path | None = None,
    epochs: int | None = None,
    precision: Precision | None = None,
) -> Config:
    given = {"epochs": epochs, "precision": precision}
    changes = {k: v for k, v in given.items() if v is not None}
    if path is None:  # with more epochs a preset may have other patience
        return Config.preset(preset, **changes)
    return replace(Config.load(path), **changes)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
