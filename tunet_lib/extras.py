"""Libraries that only some files need: loaded when such a file comes, explained when they lack."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from tunet_lib.files import DataError


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
        It is not installed, and by which command it is.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise DataError(
            f"{what}: needs {name.partition('.')[0]}, which is not installed; "
            f'run: pip install "tunet-book[{extra}]"'
        ) from error


def formats_library(name: str, path: Path) -> Any:
    """Load a library of the extra ``formats``, which a file needs; as in `library`."""
    return library(name, "formats", path)
