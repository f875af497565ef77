"""The method of Vu et al. 2019 (KiTS19): localization network and cascaded U-Nets."""

from importlib.metadata import PackageNotFoundError, version

from tunet_lib.config import Config
from tunet_lib.files import DataError

try:
    __version__ = version("tunet-book")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "unknown"

__all__ = ["Config", "DataError", "__version__"]
