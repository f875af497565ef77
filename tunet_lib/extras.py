"""Libraries that only some files need: loaded when such a file comes, explained when they lack."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from tunet_lib.files import DataError


def formats_library(name: str, path: Path) -> Any:
    """Load a library of the extra ``formats``.

    Parameters
    ----------
    name
        Of the module, such as ``"SimpleITK"``.
    path
        The file that needs it, for the message.

    Raises
    ------
    DataError
        It is not installed, and by which command it is.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise DataError(
            f"{path}: needs {name.partition('.')[0]}, which is not installed; "
            'run: pip install "tunet-book[formats]"'
        ) from error
