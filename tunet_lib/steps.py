"""The steps of a study as the command runs them: each with its bar, its time and its failures."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import TaskID

from tunet_lib.allowance import default_jobs, default_workers, processors, thread_limits
from tunet_lib.config import Config
from tunet_lib.files import DataError, listed, noting
from tunet_lib.screen import bar, bars, notes_at_the_end, say, warn

if TYPE_CHECKING:
    from tunet_lib.kits19 import Case
    from tunet_lib.plan import Pace
    from tunet_lib.runs import Run, Task


def cases_of(data: Path) -> list[Case]:
    """Say what of a data folder is not used, and list its cases."""
    from tunet_lib.layouts import find_data

    found = find_data(data)
    for sentence in found.sentences():
        warn(sentence)
    return found.cases


def prepare(
    data: Path,
    run_folder: Path,
    config: Config,
    *,
    without: list[str] | None = None,
    cyst_as: str | None = None,
    workers: int = 0,
) -> None:
    """Prepare every case but those to be left out, and deal the cases into folds."""
    from tunet_lib.provenance import timed
    from tunet_lib.runs import check_config, leave_out, left_out, prepare_run

    cases = cases_of(data)
    check_config(run_folder, config)  # before anything is noted
    leave_out(data, run_folder, without or [])
    if names := left_out(run_folder):
        warn(f"left out of this run: {', '.join(names)}")
    used = [case for case in cases if case.label_path and case.case_id not in names]
    with (
        notes_at_the_end(),
        timed(run_folder, "prepare"),
        bar("prepare", len(used)) as advance,
    ):
        run, _ = prepare_run(
            data,
            run_folder,
            config,
            cyst_as_kidney=cyst_as is not None,
            workers=workers or default_workers(),
            on_case=lambda _: advance(),
        )
    sizes = ", ".join(str(len(fold)) for fold in run.folds)
    say(f"{run_folder}: folds of {sizes} cases")


def train(
    run_folder: Path, variants: list[str] | None, folds: list[int] | None, *, jobs: int
) -> dict[str, str]:
    """Train side by side, once more what went wrong, and give what failed: training → reason."""
    from tunet_lib.jobs import train_tasks
    from tunet_lib.outliers import start_anew
    from tunet_lib.provenance import timed
    from tunet_lib.runs import open_run

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
                with contextlib.suppress(DataError):  # it ends that training, not what is shown
                    progress.update(
                        shown[task], completed=len(run.model_folder(task).epochs_done())
                    )
            for task in set(shown) - set(active):
                progress.remove_task(shown.pop(task))

        jobs = jobs or default_jobs()
        failures = train_tasks(run, tasks, jobs, on_poll=show)
        again = [task for task in went_wrong(run)[1] if task in tasks]
        for task in again:
            start_anew(run, task)
        failures |= train_tasks(run, again, jobs, on_poll=show)
        show([])
    for name, fold in (task for task in again if task not in failures):
        say(f"{name}, fold {fold}: went wrong, and was trained again with another seed")
    for (name, fold), reason in went_wrong(run)[0].items():
        warn(f"{name}, fold {fold}: {reason}")
    return {f"{name}, fold {fold}": reason for (name, fold), reason in failures.items()}


def went_wrong(run: Run) -> tuple[dict[Task, str], list[Task]]:
    """Give the trainings that went wrong, and those to be repeated; none where that is unknown.

    One damaged history leaves the rule without an answer, and stops no other training.
    """
    from tunet_lib.outliers import outliers, to_repeat

    try:
        return outliers(run), to_repeat(run)
    except DataError as error:
        warn(str(error))
        return {}, []


def train_here(
    run_folder: Path,
    variants: list[str] | None,
    folds: list[int] | None,
    *,
    number: int | None = None,
) -> dict[str, str]:
    """Train one after the other in this process, or the one of a number: no bar, no children.

    A training that went wrong is done anew, and what failed is given, as `train` does. It takes as
    many threads as it may, and the same as a process of `jobs` would.

    Raises
    ------
    DataError
        There are fewer trainings than that number, or it was given beside variants or folds.
    """
    from tunet_lib.outliers import start_anew
    from tunet_lib.provenance import timed
    from tunet_lib.runs import open_run
    from tunet_lib.worker import train_task

    run = open_run(run_folder)
    tasks = run.tasks(variants, folds)
    if number is not None:
        if variants or folds:
            raise DataError("--task counts all trainings of a run; leave out --variant and --fold")
        if number >= len(tasks):
            raise DataError(f"{run_folder}: has trainings 0 to {len(tasks) - 1}, not {number}")
        tasks = [tasks[number]]
    for name, value in thread_limits(processors()).items():
        os.environ.setdefault(name, value)
    failures: dict[str, str] = {}

    def train_some(some: list[Task], again: list[Task]) -> None:
        for task in some:
            with noting(failures, f"{task[0]}, fold {task[1]}"), timed(run_folder, "train"):
                if task in again:
                    start_anew(run, task)
                train_task(run, task)

    train_some(tasks, went_wrong(run)[1])
    if number is None:  # beside the others, which are complete now, some may have gone wrong
        again = [task for task in went_wrong(run)[1] if task in tasks]
        train_some(again, again)
    return failures


def status(run_folder: Path, variants: list[str] | None, folds: list[int] | None) -> None:
    """Print where each training stands, and what repairs the run."""
    from tunet_lib.runs import open_run
    from tunet_lib.status import REPAIRED, array_of, slurm_queue, standings

    run = open_run(run_folder)
    wrong, again = went_wrong(run)
    found = standings(run, run.tasks(variants, folds), queue=slurm_queue(run))
    for one in found:
        epochs = f"{one.epochs}/{run.config.epochs}"
        left = ""
        if one.state == "running" and one.left_s is not None:
            left = f"at most {one.left_s / 3600:.1f} hours left"
        name = f"{one.task[0]}, fold {one.task[1]}"
        line = f"{one.number:4}  {name:25}{one.state:9}{epochs:>8}  {one.where:24} {left}"
        say(line.rstrip())
    counts = Counter(one.state for one in found)
    say(", ".join(f"{count} {state}" for state, count in counts.items()))
    for one in found:
        if one.task in wrong:
            warn(f"{one.number}: went wrong: {wrong[one.task]}")
    if to_repair := [one.number for one in found if one.state in REPAIRED or one.task in again]:
        say(f"To go on, submit again with: {array_of(to_repair)}")
    if broken := [one.number for one in found if one.state == "broken"]:
        say(f"First remove what is named beside them, then submit as well: {array_of(broken)}")


def plan(run_folder: Path, variants: list[str] | None) -> None:
    """Print what the study will take on this machine."""
    for name, value in thread_limits(processors()).items():
        os.environ.setdefault(name, value)
    from tunet_lib.plan import measure, of_machine, of_network, of_study, plain_variants
    from tunet_lib.runs import open_run

    run = open_run(run_folder)
    run.tasks(variants)  # so that an unknown name is said first
    for line in of_machine(run):
        say(line)
    paces: list[Pace] = []
    failures: dict[str, str] = {}
    for variant in plain_variants(variants):
        with noting(failures, variant.name):  # one may be too large, and the others not
            paces.append(measure(run, variant))
            say(of_network(run, paces[-1]))
    if failures:
        raise DataError("; ".join(f"{name}: {reason}" for name, reason in failures.items()))
    for line in of_study(run, paces, variants):
        say(line)


def score(
    predicted: Path,
    truth: Path,
    *,
    against: Path | None = None,
    out: Path | None = None,
    cyst_as_kidney: bool = False,
) -> None:
    """Score a folder of label maps, and print its figures, and how they differ from another's."""
    from tunet_lib.pairs import differences, find_labels, interval, score_pairs, write_pairs

    folders = [predicted] if against is None else [predicted, against]
    found = [find_labels(folder) for folder in (truth, *folders)]  # before minutes are spent
    with bar("score", len(found[0]) * len(folders)) as advance:
        scored = [
            score_pairs(folder, truth, cyst_as_kidney=cyst_as_kidney, on_case=lambda _: advance())
            for folder in folders
        ]
    if out is not None:
        write_pairs(out, scored[0])
    for folder, labels, rows in zip(folders, found[1:], scored, strict=True):
        if strangers := sorted(labels.keys() - found[0].keys()):
            warn(f"{folder}: not scored, since {truth} has no such case: {listed(strangers)}")
        for case_id in (row["case_id"] for row in rows if not row["predicted"]):
            warn(f"{case_id}: no prediction in {folder}; it counts as an empty label map")
    say(f"{len(scored[0])} case{'s' * (len(scored[0]) > 1)} scored")
    for region in ("whole", "tumor"):
        say(f"DSC of {region}: {interval([row[region] for row in scored[0]])}")
        if against is not None:
            less = interval(differences(scored[0], scored[1], region))
            say(f"  less that of {against}: {less}")


def tell_untrained(run_folder: Path) -> bool:
    """Say which trainings are not complete, if any, and which went wrong; tell if all are."""
    from tunet_lib.runs import open_run
    from tunet_lib.status import untrained

    run = open_run(run_folder)
    sentence = untrained(run)
    if sentence:
        warn(sentence)
    for (name, fold), reason in went_wrong(run)[0].items():
        warn(f"{name}, fold {fold}, went wrong: {reason}")
    return not sentence


def evaluate(run_folder: Path, batch_size: int, *, jobs: int = 1) -> dict[str, str]:
    """Score every case, and give what failed: case_id → reason."""
    from tunet_lib.allowance import gpu_is_promised, gpus
    from tunet_lib.provenance import PROVENANCE_NAME, timed, write_provenance
    from tunet_lib.runs import open_run
    from tunet_lib.scoring import evaluate_run
    from tunet_lib.worker import check_gpu

    run = open_run(run_folder)
    if gpu_is_promised():
        check_gpu()
    if jobs > 1 and gpus():
        warn("all folds are scored by one process: several would want one GPU's memory at once")
        jobs = 1
    cases = sum(map(len, run.folds))
    scores = run_folder / "scores.csv"
    before = scores.read_bytes() if scores.exists() else None
    with notes_at_the_end(), timed(run_folder, "evaluate"), bar("evaluate", cases) as advance:
        _, failures = evaluate_run(
            run, jobs=jobs, batch_size=batch_size, on_case=lambda _: advance()
        )
    # Scores that were there may come from an earlier day and another machine.
    if scores.read_bytes() != before or not (run_folder / PROVENANCE_NAME).exists():
        write_provenance(run)
    return failures


def table(run_folder: Path) -> bool:
    """Print Table 1 of what was scored; tell whether every training is done, and scored."""
    from tunet_lib.runs import open_run
    from tunet_lib.scoring import tabulate_run, unscored
    from tunet_lib.table import format_table

    run = open_run(run_folder)
    if not (run_folder / "scores.csv").exists():
        raise DataError(f"{run_folder}: nothing is scored yet; run `tunet evaluate` first")
    with notes_at_the_end():
        found = tabulate_run(run)
        say("Dice similarity coefficient on the grid, mean (SD over folds):")
        print(format_table(found, markdown=False))
    if left := unscored(run):
        warn(f"{', '.join(left)}: trained, and not scored yet; run `tunet evaluate`")
    return tell_untrained(run_folder) and not left
