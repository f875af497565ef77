"""The first cell of the notebooks, in Colab and elsewhere."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parents[1]
# Of Colab's image in 2025. Its NumPy and TensorFlow go with its GPU drivers: hands off.
COLAB = {
    "tensorflow": "2.19.0",
    "keras": "3.10.0",
    "numpy": "2.0.2",
    "ipywidgets": "7.7.1",
    "ipython": "7.34.0",
}


def first_cell(number):
    path = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


def commands(cell):
    """Run a cell; give the shell commands and magics that it asked for."""
    asked = []
    shell = SimpleNamespace(
        system=asked.append,
        run_line_magic=lambda name, line: asked.append(f"%{name} {line}"),
    )
    exec(TransformerManager().transform_cell(cell), {"get_ipython": lambda: shell})
    return asked


@pytest.mark.parametrize("number", ["00", "09"])
def test_elsewhere_it_does_nothing(number):
    assert commands(first_cell(number)) == []


@pytest.mark.parametrize("number", ["00", "09"])
def test_in_colab_it_installs_the_library_and_goes_to_the_notebooks(monkeypatch, number):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    *asked, clone, install, change = commands(first_cell(number))
    assert clone.startswith("git clone ")
    assert install == "%pip install --quiet /content/tunet-book"
    assert change == "%cd -q /content/tunet-book/notebooks"
    assert [bool(re.match("nvidia-smi -L .* GPU", line)) for line in asked] == [True] * len(asked)
    assert len(asked) == (number == "09")


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Colab's TensorFlow has no wheel for it")
def test_installing_leaves_what_colab_has_as_it_is(tmp_path):
    venv.create(tmp_path)
    python = tmp_path / "bin" / "python"

    def pip(*arguments):
        options = ["--disable-pip-version-check", "--python", python]
        run = subprocess.run(
            [sys.executable, "-m", "pip", *options, *arguments],
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        return run.stdout

    colab = [f"{name}=={version}" for name, version in COLAB.items()]
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
    subprocess.run([*uv, *colab], check=True)
    # Of all that TensorFlow brings little is ever imported: no need to compile the rest.
    pip("install", "--quiet", "--no-compile", str(ROOT))
    found = {
        item["name"].lower(): item["version"] for item in json.loads(pip("list", "--format=json"))
    }
    assert {name: found[name] for name in COLAB} == COLAB
    code = "import tunet_lib.course, tunet_lib.networks, tunet_lib.flipbook, jupyterquiz"
    code += ", tunet_lib.selfcheck"
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path, capture_output=True)
