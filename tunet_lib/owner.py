"""One owner of a training's folder: the start that came last.

A scheduler that starts a training again may do so while the first copy still runs, on a node
that only seemed lost. So each start writes down who it is, and looks before each file that it
saves whether it still says so. The one that was there before stops in the end, and its
successor has gone on from the last file that it saved.

A look and a save are two steps, and between them anything may happen. So a save is written to a
temporary file first, then comes the look, then the file gets its name; and a start that has written
down its own name removes the temporary files of all others. Either they see the new name, or they
have no file left to rename, or they were done before the new one reads anything. No clock and no
lock of the file system is trusted, on one machine or on several.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from tunet_lib.files import DataError, guarded_files, load_json, save_json
from tunet_lib.process import Process, this_process

OWNER_NAME = "owner.json"


@dataclass(frozen=True)
class Owner:
    """One start of a training.

    Attributes
    ----------
    folder
        The training's own.
    process
        Which process it is.
    since
        When it took the folder: date and time, UTC.
    slurm_job, slurm_restarts
        Under Slurm the number of its job, and how often that was put back into the queue; else
        empty.
    token
        Of this start and no other.
    """

    folder: Path
    process: Process
    since: str
    slurm_job: str
    slurm_restarts: str
    token: str

    def __str__(self) -> str:
        """Say who it is, and since when."""
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        again = f" (restart {self.slurm_restarts})" if self.slurm_restarts else ""
        return f"{self.process}{job}{again}, started at {self.since}"

    def check(self) -> None:
        """Make sure that the folder is still this start's own: to be called before each save.

        Raises
        ------
        DataError
            A later start has taken it over, and maybe finished.
        """
        owner = read_owner(self.folder)
        if owner != self:
            other = f"taken over by {owner}" if owner else "finished, or given up, by a later start"
            raise DataError(f"{self.folder}: was {other}; this copy stops and saves nothing more")

    def leave(self) -> None:
        """Give the folder up, if it still is this start's own."""
        if read_owner(self.folder) == self:
            (self.folder / OWNER_NAME).unlink(missing_ok=True)


def take_over(folder: str | Path) -> Owner:
    """Make this start the owner of a training's folder, whoever has it.

    Of several at once the last one to write its name down is.

    Raises
    ------
    DataError
        The folder cannot be written.
    """
    owner = Owner(
        Path(folder),
        this_process(),
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        os.environ.get("SLURM_JOB_ID", ""),
        os.environ.get("SLURM_RESTART_COUNT", ""),
        uuid.uuid4().hex,
    )
    values = {k: v for k, v in asdict(owner).items() if k != "folder"}
    save_json(owner.folder / OWNER_NAME, values)
    others = guarded_files(owner.folder)
    # Listed before this look: if it is the owner's still, no later owner's file is among them.
    if read_owner(owner.folder) == owner:
        for path in others:
            path.unlink(missing_ok=True)
    return owner


def read_owner(folder: str | Path) -> Owner | None:
    """Read who has a training's folder; None if nobody has, as when it is complete.

    Raises
    ------
    DataError
        What is written there is damaged.
    """
    path = Path(folder) / OWNER_NAME
    try:
        values = load_json(path)
    except DataError:
        if not path.exists():
            return None
        raise
    try:
        process = values.pop("process")
        texts = {name: str(value) for name, value in values.items()}
        found = Process(str(process["host"]), int(process["pid"]), int(process["start_s"]))
        return Owner(folder=Path(folder), process=found, **texts)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: is damaged; start the training again") from error
