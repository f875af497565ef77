"""What is said where a library of an extra lacks, is broken or too old."""

import re
from pathlib import Path

import pytest

from tunet_lib.extras import OLDEST, library
from tunet_lib.files import DataError


def raising(error):
    def load(name):
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("no", name="onnx"), "which is not installed"),
        (ModuleNotFoundError("No module named 'ml_dtypes'", name="ml_dtypes"), "'ml_dtypes'"),
        (ImportError("libstdc++.so.6: no GLIBCXX_3.4.32"), r"cannot be loaded \(libstdc"),
    ],
)
def test_what_lacks_and_what_is_broken(monkeypatch, error, said):
    monkeypatch.setattr("tunet_lib.extras.import_module", raising(error))
    with pytest.raises(DataError, match=rf'export: needs onnx, .*{said}.*"tunet-book\[onnx\]"'):
        library("onnx.helper", "onnx", "export")


@pytest.mark.parametrize(
    ("name", "version", "is_old"),
    [
        ("SimpleITK", "2.5.5", True),
        ("SimpleITK", "2.5.6", False),
        ("SimpleITK", "2.10.0", False),
        ("highdicom", "0.27.1", True),
        ("highdicom", "0.28.0", False),
        ("highdicom.seg", "1.0.0rc1", False),
    ],
)
def test_what_is_too_old(monkeypatch, name, version, is_old):
    monkeypatch.setattr("tunet_lib.extras.import_module", lambda _: "loaded")
    monkeypatch.setattr("tunet_lib.extras.metadata.version", lambda _: version)
    if is_old:
        with pytest.raises(DataError, match=f"or newer, not {version}; run: pip install --upgrade"):
            library(name, "formats", "ct.nrrd")
    else:
        assert library(name, "formats", "ct.nrrd") == "loaded"


def test_the_bounds_are_those_of_the_package():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for name, least in OLDEST.items():
        bounds = set(re.findall(rf'"{name}>=(.*?)"', text))
        assert bounds == {".".join(map(str, least))}
