"""Light checks of the packaging, the pages and what the README promises."""

import ast
import csv
import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from tunet_lib.phantom import write_phantoms
from tunet_lib.scans import load_label, load_scan

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))


def module_name(path: Path) -> str:
    """Give what follows "tunet_lib." in an import; a package is its __init__.py."""
    parts = path.relative_to(ROOT / "tunet_lib").with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").rstrip(".")


FILES = {module_name(path): path for path in (ROOT / "tunet_lib").rglob("*.py")}
MODULES = sorted(name for name in FILES if name)
NEED_KERAS = {"losses", "export", "model", "networks", "patches", "quiet", "training"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tracked_texts() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def test_every_command_in_the_readme_runs_in_ci():
    readme, ci = read("README.md"), read(".ci/run")
    fences = re.findall(r"^```(.*)$", readme, re.MULTILINE)
    assert set(fences[::2]) == {"bash", "python"}, "CI runs the blocks that are marked bash"
    assert re.search(r'^stage "\w+" readme_commands$', ci, re.MULTILINE)
    awk = re.search(r"awk '([^']+)' README\.md", ci)[1]
    run = subprocess.run(
        ["awk", awk, "README.md"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    blocks = re.findall(r"^```bash\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert run.stdout.splitlines() == [
        line for block in blocks for line in block.splitlines() if line
    ]
    for target in re.findall(r"^make (\w+)$", readme, re.MULTILINE):
        assert f"make {target}\n" in ci
        assert re.search(rf"^{target}:", read("Makefile"), re.MULTILINE)


def test_the_python_in_the_readme_runs(tmp_path, monkeypatch):
    block = re.search(r"^```python\n(.*?)^```$", read("README.md"), re.MULTILINE | re.DOTALL)[1]
    write_phantoms(tmp_path / "data" / "phantoms", count=1)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    scan = load_scan("data/phantoms/case_00000/imaging.nii.gz")
    assert load_label("data/label.nii.gz", scan).any()


def test_the_digests_of_the_label_maps_are_part_of_the_repository():
    assert ROOT / "tunet_lib" / "data" / "kits19_labels_sha256.txt" in tracked_texts()


def test_readme_names_no_file_that_is_missing():
    for name in re.findall(r"\]\((?!http)([^)]+)\)", read("README.md")):
        assert (ROOT / name).exists(), name


def test_environment_lists_nothing_twice():
    dependencies = read("environment.yml").partition("dependencies:")[2]
    names = re.findall(r"^ +- ([a-z][\w-]*)(?!.*:$)", dependencies, re.MULTILINE)
    assert sorted(names) == ["pip", "python"]
    ours = {re.match(r"[\w-]+", line)[0].lower() for line in requires("tunet-book")}
    assert not ours & set(names)
    assert "-e .[book,test]" in read("environment.yml")
    assert '-e ".[book,test]"' in read("Makefile")


@pytest.mark.parametrize("package", ["tensorflow", "keras", "numpy"])
def test_nothing_that_colab_has_is_pinned_from_above(package):
    lines = [line.partition(";")[0] for line in requires("tunet-book")]
    bounds = [line for line in lines if re.match(rf"{package}\b", line)]
    assert bounds
    assert not any(re.search("<|==|~=", bound) for bound in bounds)


def test_import_is_quick_and_light():
    code = (
        "import sys, time; before = time.process_time(); import tunet_lib; "
        "print(time.process_time() - before, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
        )
        for _ in range(3)
    ]
    time_s, *loaded = min(run.stdout.split() for run in runs)
    assert float(time_s) < 0.5
    assert loaded == ["False", "False"]


def test_data_modules_load_without_tensorflow():
    light = ", ".join(f"tunet_lib.{name}" for name in MODULES if name not in NEED_KERAS)
    code = f"import sys, {light}; print({{'tensorflow', 'keras', 'jax'}} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert run.stdout.strip() == "set()"


def test_one_version_everywhere():
    version = re.search(r'^version = "(.+)"', read("pyproject.toml"), re.MULTILINE)[1]
    assert f"version: {version}\n" in read("CITATION.cff")
    assert f"## {version}" in read("CHANGELOG.md")


def test_every_module_is_in_the_api_pages():
    text = "".join(read(page) for page in PAGES if page.stem.startswith("api"))
    listed = re.findall(r"automodule:: tunet_lib\.([\w.]+)", text)
    assert sorted(listed) == [name for name in MODULES if name != "cli"]


def test_every_page_is_in_the_contents():
    files = re.findall(r"(?:file|root): (\S+)", read("_toc.yml"))
    pages = [*PAGES, *NOTEBOOKS]
    assert sorted(files) == sorted(str(p.relative_to(ROOT).with_suffix("")) for p in pages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_that_a_page_names_exists(page):
    roles = re.findall(r"\{py:\w+\}`~?tunet_lib\.([\w.]+)`", page.read_text(encoding="utf-8"))
    for role in roles:
        module = role
        while module not in FILES:
            module = module.rpartition(".")[0]
        name = role.removeprefix(module).lstrip(".")
        body = ast.parse(FILES[module].read_text(encoding="utf-8")).body
        if FILES[module].name == "__init__.py":  # a package gives what it imports
            body = [alias for node in body for alias in getattr(node, "names", [])]
        defined = {getattr(node, "name", None) for node in body}
        assert not name or name.split(".")[0] in defined, role


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_works_that_a_page_cites_are_in_the_bibliography(page):
    known = set(re.findall(r"^@\w+\{(\w+),", read("book/references.bib"), re.MULTILINE))
    cites = re.findall(r"\{cite:\w\}`([\w,]+)`", page.read_text(encoding="utf-8"))
    assert {key for cite in cites for key in cite.split(",")} <= known


def test_no_text_names_a_machine_or_a_package_index():
    # A path of somebody's machine, or where somebody's packages come from.
    strange = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users|opt|mnt)/\w|--(?:extra-)?index-url")
    for path in tracked_texts():
        found = strange.search(path.read_text(encoding="utf-8"))
        assert found is None or path == Path(__file__), f"{path}: {found}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_executed(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"])]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    printed = "".join(
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        for cell in code
        for output in cell["outputs"]
    )
    assert re.search(r"\d", printed), "nbval compares nothing where nothing is stored"


def test_the_pages_were_measured_and_are_light():
    with (ROOT / "book" / "results" / "pages.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    chapters = {f"notebooks/{path.stem}.html" for path in NOTEBOOKS}
    assert chapters <= {line["page"] for line in lines}
    assert {line["width_px"] for line in lines} == {"1280", "390"}
    assert max(int(line["weight_bytes"]) for line in lines) <= 1.5e6
    assert all(int(line["first_paint_ms"]) > 0 for line in lines)
