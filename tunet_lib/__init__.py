"""The method of Vu et al. 2019 (KiTS19): localization network and cascaded U-Nets.

From a file to an answer::

    import tunet_lib as tunet

    scan = tunet.load_scan("CT.nii.gz")
    label = tunet.predict_scan(scan)
    tunet.save_label(label, scan, "label.nii.gz")

Chapter 00 (``notebooks/00_quickstart.ipynb``).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunet_lib.config import Config
from tunet_lib.files import DataError

if TYPE_CHECKING:
    from tunet_lib.model import Model
    from tunet_lib.placement import Placement
    from tunet_lib.predict import predict_scan
    from tunet_lib.scans import load_scan, save_label

    __version__: str

__all__ = [
    "Config",
    "DataError",
    "Model",
    "Placement",
    "__version__",
    "load_scan",
    "predict_scan",
    "save_label",
]

_WHERE = {"Model": "model", "Placement": "placement", "predict_scan": "predict"}
_WHERE |= {"load_scan": "scans", "save_label": "scans"}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: most of it takes longer than the question."""
    if name == "__version__":
        return _version()
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    """Name what is loaded when asked for as well, to whoever completes names."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tunet-book")
    except PackageNotFoundError:  # a source tree that was never installed
        return "unknown"
