"""The `tunet` command: each step of the method, and all of them in a row."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import typer
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from tunet_lib import options
from tunet_lib.config import Config, Precision, Preset
from tunet_lib.files import DataError
from tunet_lib.screen import bar, bars, bytes_bar, complain, console, failures_at_the_end, say, warn

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
    data: options.Data, labels_only: options.LabelsOnly = False, workers: options.Workers = 0
) -> None:
    """Open and verify every file of a data folder; list what is wrong."""
    from tunet_lib.check import check_folder
    from tunet_lib.kits19 import find_cases

    with bar("check", len(find_cases(data))) as advance:
        count, problems = check_folder(
            data,
            labels_only=labels_only,
            workers=workers or _default_workers(),
            on_case=lambda _: advance(),
        )
    if problems:
        table = Table("case", "file", "what is wrong, or strange")
        for problem in problems:
            style = "yellow" if problem.is_strange_only else "red"
            table.add_row(problem.case_id, problem.file, Text(problem.what, style=style))
        console.print(table)
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
    workers: options.Workers = 0,
) -> None:
    """Start a run: bring every case to the grid, and deal the cases into folds."""
    with failures_at_the_end() as failures:
        chosen = _config(preset, config, epochs, precision)
        failures |= _prepare(data, run_folder, chosen, workers)


@app.command()
def train(
    run_folder: options.RunFolder,
    variant: options.Variants = None,
    fold: options.Folds = None,
    jobs: options.Jobs = 0,
    here: options.Here = False,
) -> None:
    """Train the networks; those that are complete are kept, the rest go on where they were."""
    if here:
        from tunet_lib.runs import open_run
        from tunet_lib.worker import train_task

        run = open_run(run_folder)
        for task in run.tasks(variant, fold):
            train_task(run, task)
        return
    with failures_at_the_end() as failures:
        failures |= _train(run_folder, variant, fold, jobs)


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
    from tunet_lib.files import check_writable
    from tunet_lib.predict import COURSE_WEIGHTS, Networks

    jobs, outcomes = plan(cts, output, suffix=f".{format}"), []
    if report is not None:
        check_writable(report)
    if models is None:
        warn(
            "These networks were trained on synthetic phantoms, for the course. On a real CT "
            "expect poor results; train on KiTS19 and name your own with --models."
        )
    networks = Networks(models or COURSE_WEIGHTS)
    how = {"windows": windows, "batch_size": batch_size, "tumor_rule": not no_tumor_rule}
    with failures_at_the_end() as failures, bar("networks", len(networks) * len(jobs)) as advance:
        for outcome in predict_each(jobs, networks, series=series, on_part=advance, **how):
            outcomes.append(outcome)
            for note in outcome.notes:
                warn(note)
            if not outcome.failure:
                say(str(outcome))
            elif len(jobs) > 1:
                complain(str(outcome.job.ct), outcome.failure)
            if outcome.failure:
                failures[str(outcome.job.ct)] = outcome.failure
            if report is not None:
                write_report(report, outcomes)


@app.command()
def evaluate(run_folder: options.RunFolder, batch_size: options.BatchSize = 4) -> None:
    """Score every case by the models that never saw it: scores.csv."""
    with failures_at_the_end() as failures:
        failures |= _evaluate(run_folder, batch_size)


@app.command()
def table(run_folder: options.RunFolder) -> None:
    """Print Table 1 beside the paper's numbers: table_1.csv."""
    _table(run_folder)


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
) -> None:
    """Do it all: prepare, train, evaluate, table.

    The preset course takes hours on two cores. Run it again, and it goes on where it was.
    """
    with failures_at_the_end() as failures:
        failures |= _prepare(data, run_folder, _config(preset, config, epochs, precision))
        failures |= _train(run_folder, variant, fold, jobs)
        failures |= _evaluate(run_folder, batch_size)
        _table(run_folder)


def main() -> None:
    """Run the command; bad data ends it with one line and exit status 1."""
    try:
        app()
    except DataError as error:
        complain("Error", str(error))
        sys.exit(1)


def _prepare(data: Path, run_folder: Path, config: Config, workers: int = 0) -> dict[str, str]:
    from tunet_lib.kits19 import find_cases
    from tunet_lib.provenance import timed
    from tunet_lib.runs import prepare_run

    with timed(run_folder, "prepare"), bar("prepare", len(find_cases(data))) as advance:
        run, failures = prepare_run(
            data,
            run_folder,
            config,
            workers=workers or _default_workers(),
            on_case=lambda _: advance(),
        )
    sizes = ", ".join(str(len(fold)) for fold in run.folds)
    say(f"{run_folder}: folds of {sizes} cases")
    return failures


def _train(
    run_folder: Path, variants: list[str] | None, folds: list[int] | None, jobs: int
) -> dict[str, str]:
    from tunet_lib.jobs import train_tasks
    from tunet_lib.provenance import timed
    from tunet_lib.runs import Task, open_run

    run = open_run(run_folder)
    tasks = run.tasks(variants, folds)
    with timed(run_folder, "train"), bars() as progress:
        total = progress.add_task("trainings", total=len(tasks))
        shown: dict[Task, TaskID] = {}

        def show(active: list[Task]) -> None:
            progress.update(total, completed=sum(run.model_folder(t).is_trained for t in tasks))
            for task in active:
                if task not in shown:
                    name = f"  {task[0]}, fold {task[1]}: epochs"
                    shown[task] = progress.add_task(name, total=run.config.epochs)
                progress.update(shown[task], completed=len(run.model_folder(task).history()))
            for task in set(shown) - set(active):
                progress.remove_task(shown.pop(task))

        failures = train_tasks(run, tasks, jobs or _default_jobs(), on_poll=show)
        show([])
    return {f"{name}, fold {fold}": reason for (name, fold), reason in failures.items()}


def _evaluate(run_folder: Path, batch_size: int) -> dict[str, str]:
    from tunet_lib.provenance import PROVENANCE_NAME, timed, write_provenance
    from tunet_lib.runs import open_run
    from tunet_lib.scoring import evaluate_run

    run = open_run(run_folder)
    cases = sum(map(len, run.folds))
    scores = run_folder / "scores.csv"
    before = scores.read_bytes() if scores.exists() else None
    with timed(run_folder, "evaluate"), bar("evaluate", cases) as advance:
        _, failures = evaluate_run(run, batch_size=batch_size, on_case=lambda _: advance())
    # Scores that were there may come from an earlier day and another machine.
    if scores.read_bytes() != before or not (run_folder / PROVENANCE_NAME).exists():
        write_provenance(run)
    return failures


def _table(run_folder: Path) -> None:
    from tunet_lib.runs import open_run
    from tunet_lib.scoring import tabulate_run
    from tunet_lib.table import format_table

    console.print("Dice similarity coefficient on the grid, mean (SD over folds):")
    print(format_table(tabulate_run(open_run(run_folder)), markdown=False))


def _config(
    preset: Preset,
    path: Path | None = None,
    epochs: int | None = None,
    precision: Precision | None = None,
) -> Config:
    config = Config.load(path) if path else Config.preset(preset)
    given = {"epochs": epochs, "precision": precision}
    return replace(config, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]


def _default_workers() -> int:
    # The largest CT of KiTS19 takes up to 2 GB.
    by_memory = int(psutil.virtual_memory().available / 2e9)
    return max(1, min(by_memory, os.cpu_count() or 1))


def _default_jobs() -> int:
    # Asking TensorFlow for GPUs would load it here; the driver's device is enough to know.
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    return 1 if has_gpu else min(4, os.cpu_count() or 1)


if __name__ == "__main__":
    main()
