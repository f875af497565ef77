"""Libraries that only some files need: loaded when such a file comes, explained when they lack."""

from __future__ import annotations

import re
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from tunet_lib.files import DataError

# Older ones give wrong results without a word: SimpleITK turns an NRRD in LAS by half a turn,
# highdicom makes question marks of a name in Japanese.
OLDEST = {"SimpleITK": (2, 5, 6), "highdicom": (0, 28)}


def library(name: str, extra: str, what: str | Path) -> Any:
    """Load a library of an extra.

    Parameters
    ----------
    name
        Of the module, such as ``"SimpleITK"``.
    extra
        Which extra brings it.
    what
        What needs it, for the message.

    Raises
    ------
    DataError
        It is not installed, and by which command it is; or it is too old, or cannot be loaded.
    """
    top = name.partition(".")[0]
    try:
        loaded = import_module(name)
    except ImportError as error:
        lacks = isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == top
        problem = "which is not installed" if lacks else f"which cannot be loaded ({error})"
        raise DataError(
            f'{what}: needs {top}, {problem}; run: pip install "tunet-book[{extra}]"'
        ) from error
    if top in OLDEST:
        version, oldest = metadata.version(top), OLDEST[top]
        if tuple(map(int, re.findall(r"\d+", version))) < oldest:
            raise DataError(
                f"{what}: needs {top} {'.'.join(map(str, oldest))} or newer, not {version}; "
                f'run: pip install --upgrade "tunet-book[{extra}]"'
            )
    return loaded


def formats_library(name: str, path: Path) -> Any:
    """Load a library of the extra ``formats``, which a file needs; as in `library`."""
    return library(name, "formats", path)
