"""The folder of one trained network: what lies in it, under which name.

A training writes all of it; the weights come last, so a folder that holds them is complete.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunet_lib.allowance import threads
from tunet_lib.config import VARIANTS, Config, Variant
from tunet_lib.environment import git_state, versions
from tunet_lib.files import DataError, DataWarning, files_below, is_list_of, load_json, save_json
from tunet_lib.history import EpochLog, read_history, write_history

WEIGHTS_NAME = "model.weights.h5"


@dataclass(frozen=True)
class ModelFolder:
    """Where one network is, and what its training wrote down."""

    path: Path

    @property
    def weights(self) -> Path:
        """The weights, in Keras' HDF5 layout."""
        return self.path / WEIGHTS_NAME

    @property
    def config_path(self) -> Path:
        """The configuration that the network was trained with."""
        return self.path / "config.json"

    @property
    def variant_path(self) -> Path:
        """The name of the network's variant."""
        return self.path / "variant.json"

    @property
    def history_path(self) -> Path:
        """The log of the epochs."""
        return self.path / "history.csv"

    @property
    def first_history_path(self) -> Path:
        """The log of a first attempt that went wrong and was repeated (`outliers`)."""
        return self.path / "first_history.csv"

    @property
    def attempt(self) -> int:
        """Which training this is, from 1. Each has a seed of its own."""
        return 1 + self.first_history_path.exists()

    @property
    def checkpoint(self) -> Path:
        """All that the next epoch depends on; gone when the training is complete."""
        return self.path / "checkpoint.npz"

    @property
    def log(self) -> Path:
        """What the training's process printed."""
        return self.path / "training.log"

    @property
    def is_trained(self) -> bool:
        """Whether the training is complete."""
        return self.weights.exists()

    def config(self) -> Config:
        """Read the configuration that the network was trained with."""
        return Config.load(self.config_path)

    def variant(self) -> Variant:
        """Read which variant the network is.

        Raises
        ------
        DataError
            The file is missing, or names none.
        """
        name = load_json(self.variant_path)
        if not isinstance(name, str) or name not in VARIANTS:
            raise DataError(f"{self.variant_path}: names no known variant: {name!r}")
        return VARIANTS[name]

    def check_config(self, config: Config, variant: Variant | None = None) -> None:
        """Make sure that what is here was trained with this configuration, if anything was.

        Raises
        ------
        DataError
            It was trained with another one, or is another network than `variant`.
        """
        if variant is not None and self.variant_path.exists() and self.variant() != variant:
            raise DataError(
                f"{self.path}: holds a training of {self.variant().name}; use another folder"
            )
        if not self.config_path.exists():
            return
        if wrong := self.config().differences(config, in_training=True):
            raise DataError(
                f"{self.path}: holds a training with another configuration ({', '.join(wrong)} "
                "differ); use another folder, or remove it to train again"
            )

    def check_files(self, config: Config) -> None:
        """Make sure that what is here can be used, or gone on with.

        Raises
        ------
        DataError
            Its weights or its checkpoint are damaged; or as for `check_config`.
        """
        self.check_config(config)
        if self.is_trained:
            with self.weights.open("rb") as stream:
                if stream.read(8) != b"\x89HDF\r\n\x1a\n":
                    raise DataError(f"{self.weights}: is no weight file; remove {self.path}")
        elif self.checkpoint.exists() and not zipfile.is_zipfile(self.checkpoint):
            raise DataError(f"{self.checkpoint}: is no checkpoint; remove it to start anew")

    def describe(self, variant: Variant, config: Config) -> None:
        """Write down what is trained here, before there are weights."""
        config.save(self.config_path)
        save_json(self.variant_path, variant.name)

    def history(self) -> list[EpochLog]:
        """Read the log of the epochs so far; none if nothing is trained yet."""
        return read_history(self.history_path) if self.history_path.exists() else []

    def epochs_done(self) -> list[EpochLog]:
        """Read the log of this attempt, which has none while only that of the first is there."""
        history = self.history()
        is_first = self.attempt > 1 and history == read_history(self.first_history_path)
        return [] if is_first and not self.is_trained else history

    def keep_first_history(self) -> None:
        """Keep the log of the first attempt, so that from now on this is the second one."""
        write_history(self.first_history_path, self.history())

    def note_split(self, split: Any) -> None:
        """Write down the cases of a `folds.Split`, as `note_cases` does."""
        training, watched = (
            [case.case_id for case in cases] for cases in (split.training, split.validation)
        )
        self.note_cases(training, watched)

    def note_cases(self, trained: list[str], watched: list[str] | None = None) -> None:
        """Write down the cases that the network is trained on, and those that choose its epoch.

        Nothing is written beside finished weights: of what was not noted nobody knows.

        Raises
        ------
        DataError
            It was trained on others before, or began with them in another order.
        """
        self._note_cases("training_cases.json", trained)
        if watched is not None:
            self._note_cases("watched_cases.json", watched)

    def _note_cases(self, name: str, case_ids: list[str]) -> None:
        path = self.path / name
        if not path.exists():
            if not self.is_trained:
                save_json(path, case_ids)
            return
        noted = load_json(path)
        if not is_list_of(str, noted) or sorted(noted) != sorted(case_ids):
            raise DataError(
                f"{self.path}: was trained on other cases (see {name}); remove it to train again"
            )
        if noted != case_ids and not self.is_trained:  # batches are drawn in their order
            raise DataError(
                f"{self.path}: began with the same cases in another order; give them as {name} does"
            )

    def seen(self) -> list[str]:
        """List the cases that the network was trained on.

        Raises
        ------
        DataError
            That was not written down, or names no case: then nobody can say on which cases the
            network may be scored.
        """
        path = self.path / "training_cases.json"
        case_ids = load_json(path)
        if not is_list_of(str, case_ids) or not case_ids:
            raise DataError(f"{path}: names no cases; remove {self.path} to train again")
        return case_ids

    def note_code(self) -> None:
        """Write down the state of the code and the threads, which may differ from start to start.

        Warns
        -----
        DataWarning
            The training goes on with another number of threads: the last bits may differ from
            those of one that was not stopped.
        """
        states = self.trained_with()
        state = {"git": git_state(), "versions": versions(), "threads": threads()}
        before = states[-1].get("threads", threads()) if states else threads()
        if before != threads() and not self.is_trained:
            warnings.warn(
                f"{self.path}: was trained with {before} threads and goes on with {threads()}; "
                "sums are rounded in another order, so the last bits of its weights may differ "
                "from those of a training that was not stopped",
                DataWarning,
                stacklevel=2,
            )
        if state not in states and not self.is_trained:
            save_json(self.path / "trained_with.json", [*states, state])

    def trained_with(self) -> list[dict[str, Any]]:
        """List what the network was trained with: the code (git, versions), the number of threads.

        More than one if its training was gone on with later; none if it noted none.

        Raises
        ------
        DataError
            What was noted is damaged.
        """
        path = self.path / "trained_with.json"
        states = load_json(path) if path.exists() else []
        if not is_list_of(dict, states) or not all(map(_is_state, states)):
            raise DataError(f"{path}: is no list of versions; remove it")
        return states


def models_below(folder: str | Path) -> list[ModelFolder]:
    """List the trained networks in a folder and below it, sorted by path."""
    return [ModelFolder(path.parent) for path in files_below(folder) if path.name == WEIGHTS_NAME]


def check_alike(models: Sequence[ModelFolder]) -> None:
    """Raise a `DataError` where not all of some networks have the configuration of the first."""
    first = models[0]
    for other in models:
        if wrong := other.config().differences(first.config()):
            raise DataError(
                f"{other.path}: has another configuration than {first.path} "
                f"({', '.join(wrong)} differ); keep the models of each in a folder of their own"
            )


def _is_state(state: dict[str, Any]) -> bool:
    git = state.get("git", "")
    if not isinstance(state.get("threads", 1), int):
        return False
    return git is None or (
        isinstance(git, dict)
        and isinstance(git.get("commit"), str)
        and isinstance(git.get("dirty"), bool)
    )
