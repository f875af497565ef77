"""What else the process, its user and its machine are set to does not leak in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scans import scan_config, write_scans

ROOT = Path(__file__).parents[2]
# As the command's own script, which does not search the working folder.
TUNET = (
    "import sys; sys.path[:] = [*filter(None, sys.path)]; from tunet_lib.cli import main; main()"
)


def python(code, *arguments, shell="", **options):
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=120,
        **options,
    )


@pytest.fixture
def data(tmp_path):
    write_scans(tmp_path / "data", 2)
    scan_config().save(tmp_path / "tiny.json")
    return tmp_path / "data"


def test_the_keras_of_other_work(tmp_path):
    """easybuilders/easybuild-easyconfigs#23163, tensorflow/tensorflow#44126."""
    settings = {"backend": "torch", "image_data_format": "channels_first", "floatx": "float64"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = "from tunet_lib.quiet import keras; c = keras.config; "
    code += "print(c.backend(), c.image_data_format(), c.floatx())"
    run = python(code, env={"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "tensorflow"})
    assert run.stdout.split() == [b"tensorflow", b"channels_last", b"float32"], run.stderr
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("KERAS_BACKEND", None)
    again = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    assert again.stdout.split() == [b"tensorflow", b"channels_last", b"float32"], again.stderr


@pytest.mark.parametrize(("limit", "said"), [("-3", "must be a number of threads"), ("", "ready")])
def test_a_number_of_threads_below_0_is_named(limit, said):
    code = "from tunet_lib.files import DataError\ntry:\n    import tunet_lib.quiet\n"
    code += "    print('ready')\nexcept DataError as error:\n    print(error)"
    run = python(code, env={"TF_NUM_INTRAOP_THREADS": limit})
    assert said in run.stdout.decode()


@pytest.mark.parametrize("name", ["nonsense", "numpy", "openvino"])
def test_a_backend_that_cannot_train_is_named(name):
    code = "from tunet_lib.files import DataError\ntry:\n    import tunet_lib.quiet\n"
    code += "except DataError as error:\n    print(error)"
    run = python(code, env={"KERAS_BACKEND": name})
    assert f"Keras' backend {name!r} cannot train".encode() in run.stdout
    assert b"set the environment variable KERAS_BACKEND to tensorflow" in run.stdout


def test_a_backend_that_is_not_there_is_named():
    code = "import sys\nsys.modules['torch'] = None\nfrom tunet_lib.files import DataError\n"
    code += "try:\n    import tunet_lib.quiet\nexcept DataError as error:\n    print(error)"
    run = python(code, env={"KERAS_BACKEND": "torch"})
    assert b"cannot be loaded with the backend 'torch'" in run.stdout
    assert b"set the environment variable KERAS_BACKEND to tensorflow" in run.stdout


def test_modules_beside_the_user_are_not_loaded(data, tmp_path):
    """keras-team/keras#3165: pickle.py, struct.py or keras.py in the working folder."""
    (tmp_path / "here").mkdir()
    for name in ("pickle", "struct", "socket", "numpy", "keras", "tunet_lib", "copy"):
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    arguments = ("prepare", data, tmp_path / "run", "--config", tmp_path / "tiny.json")
    run = python(TUNET, *arguments, "--workers", 2, cwd=tmp_path / "here")
    assert (run.returncode, run.stderr) == (0, b"")


EACH = """
import math, sys
sys.path[:] = [*filter(None, sys.path)]
from tunet_lib.parallel import each
if __name__ == "__main__":
    print(sorted(result() for _, result in each(math.sqrt, [1, 4, 9], workers=2)))
"""


@pytest.mark.parametrize("safe", ["", "1"])
def test_a_random_py_beside_the_user_where_python_searches_the_working_folder(tmp_path, safe):
    """As Python 3.10 always does, and later ones do without PYTHONSAFEPATH."""
    for name in ("random.py", "pickle.py", "mine.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong one')")
    (tmp_path / "socket").mkdir()
    (tmp_path / "socket" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    run = python(EACH, cwd=tmp_path, env={"PYTHONSAFEPATH": safe})
    assert (run.returncode, run.stdout) == (0, b"[1.0, 2.0, 3.0]\n"), run.stderr
    if not safe or sys.version_info < (3, 11):
        assert b"pickle.py, random.py, socket in the working folder would be taken" in run.stderr
        assert b"mine" not in run.stderr
    else:
        assert run.stderr == b""


@pytest.mark.parametrize("options", ["size=4k", "size=16k", "nr_inodes=1"])
def test_a_dev_shm_that_is_too_small(tmp_path, options):
    """ya-runtime-vm#71 and its kind: containers give 64 KB, or next to nothing."""
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    try_it = ["unshare", "-m", "sh", "-c", mount]
    if subprocess.run(try_it, capture_output=True, check=False).returncode:
        pytest.skip("only root can make a small /dev/shm")
    (tmp_path / "each.py").write_text(EACH)
    command = [*try_it[:-1], f'{mount} && exec "$@"', "sh", sys.executable, "each.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, capture_output=True, cwd=tmp_path, env=environment, check=False, timeout=120
    )
    assert (run.returncode, run.stdout) == (0, b"[1.0, 2.0, 3.0]\n"), run.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed, data, tmp_path):
    """staticdhcpd/staticdhcpd#88: without standard error nothing was written."""
    arguments = ("prepare", data, tmp_path / "run", "--config", tmp_path / "tiny.json")
    run = python(TUNET, *arguments, "--workers", 1, shell=closed)
    assert run.returncode == 0
    assert (tmp_path / "run" / "run.json").exists()
    code = "import tunet_lib.quiet; open('keras', 'w').write('loaded')"
    assert python(code, shell="2>&-", cwd=tmp_path).returncode == 0
    assert (tmp_path / "keras").read_text() == "loaded"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no /dev/full")
@pytest.mark.parametrize("shown", [">/dev/full", ">/dev/full 2>&1", "| true"])
def test_what_cannot_be_shown_stops_nothing(shown, data, tmp_path):
    """A log on a full disk, and a pipe into head, which leaves after its lines."""
    command = [sys.executable, "-c", TUNET, "check", data, "--workers", "1"]
    (tmp_path / "out").mkdir()
    script = f'"$@" {shown}; echo "${{PIPESTATUS[0]}}" >status'
    run = subprocess.run(
        ["bash", "-c", script, "bash", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path / "out",
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert (run.stderr, (tmp_path / "out" / "status").read_text()) == (b"", "0\n")


def test_a_screen_of_few_letters(tmp_path):
    """interactiveaudiolab/allosaurus#73: cp1252, and a file name that it does not have."""
    write_scans(tmp_path / "Łódź 東京", 2)
    encoding = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    run = python(TUNET, "check", tmp_path / "Łódź 東京", "--workers", "1", env=encoding)
    assert (run.returncode, run.stderr) == (0, b"")
    missing = python(TUNET, "check", tmp_path / "東京", env=encoding)
    assert missing.returncode == 1
    assert b"Traceback" not in missing.stderr
    assert rb"\u6771\u4eac" in missing.stderr


def test_what_workers_warn_of_is_said_once_and_without_a_place_in_the_code(data, tmp_path):
    for workers in ("1", "2"):
        out = tmp_path / f"run{workers}"
        arguments = ("prepare", data, out, "--config", tmp_path / "tiny.json")
        run = python(TUNET, *arguments, "--workers", workers)
        assert (run.returncode, run.stderr) == (0, b"")
        said = run.stdout.decode()
        assert said.count("case_00000/imaging.nii.gz: has only 16 slices") == 1
        assert "DataWarning" not in said
