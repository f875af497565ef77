"""A disk that is full at any size: a `DataError` that says so, the old file whole, nothing left.

Each size is tried in a process of its own, by the limit that a system sets on the size of a file
(``RLIMIT_FSIZE``): as root also on a small file system of its own, where all files share the room.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# Tries one writer at many sizes; what it wrote before is there to be replaced.
SWEEP = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from scans import LABEL, VOLUME, box_scan
from tiny import SCORE_ROWS, tiny_config
from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError, save_array, save_json

def weights(folder, value):
    from tunet_lib.weights import write_weights
    write_weights(folder / "model.weights.h5", network)

def checkpoint(folder, value):
    training.save(folder / "checkpoint.npz")

def history(folder, value):
    from tunet_lib.history import write_history
    log = dict.fromkeys(("epoch", "loss", "val_loss", "learning_rate", "attempts", "time_s"), value)
    write_history(folder / "history.csv", [log] * 400)

def scores(folder, value):
    from tunet_lib.evaluation import write_scores
    write_scores(folder / "scores.csv", SCORE_ROWS * 100)

def case(folder, value):
    from tunet_lib.kits19 import save_case
    save_case(folder, *box_scan(value), spacing_mm=(4.0, 4.0, 4.0))

def owner(folder, value):
    from tunet_lib.owner import take_over
    take_over(folder)

def label_map(name):
    def write(folder, value):
        from tunet_lib.scans import save_label
        label = np.random.default_rng(value).integers(0, 3, scan.shape).astype(np.uint8)
        save_label(label, scan, folder / name)
    return write

def report(folder, value):
    from tunet_lib.batch import Job, Outcome, write_report
    job = Job(Path("ct.nii.gz"), Path("label.nii.gz"))
    write_report(folder / "report.csv", [Outcome(job, failure="bad" * value)] * 400)

def onnx(folder, value):
    from tunet_lib.export import export_onnx
    export_onnx(models, folder, variants=["lnet"])

def table(folder, value):
    from tunet_lib.table import table_1, write_table
    write_table(folder / "table_1.csv", table_1(SCORE_ROWS))

WRITERS = {
    "json": lambda folder, value: save_json(folder / "a.json", [value] * 9999),
    "array": lambda folder, value: save_array(folder / "a.npy", np.full(9999, value)),
    **{f.__name__: f for f in (weights, checkpoint, history, scores, table, case)},
    **{f.__name__: f for f in (owner, report, onnx)},
    **{name: label_map(name) for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.dcm")},
}
name, folder, sizes = sys.argv[1], Path(sys.argv[2]), [int(size) for size in sys.argv[3:]]
if name == "weights":
    from tunet_lib.model import Model
    network = Model.untrained(VARIANTS["unet2d"], tiny_config(levels=1)).network
if name == "onnx":
    from tunet_lib.model import Model
    models = folder / "models"
    for variant in ("lnet", "tunet"):
        Model.untrained(VARIANTS[variant], tiny_config(levels=1)).save(models / variant)
if name == "checkpoint":
    from tiny import write_cases
    from tunet_lib.folds import Split
    from tunet_lib.training import Training
    cases = write_cases(folder / "cases", 2)
    training = Training(VARIANTS["unet2d"], tiny_config(levels=1), Split(0, cases[:1], cases[1:]))
if name.startswith("a."):
    import dicoms
    from tunet_lib.scans import open_scan
    scan = open_scan(dicoms.write(folder / "series", dicoms.series(24)))
out = folder / "out"
WRITERS[name](out, 1)
whole = {path.name: path.read_bytes() for path in out.iterdir()}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
full = 0
largest = max(map(len, whole.values()))
for size in sizes or [*range(0, largest, 1 + largest // 25), largest - 8, largest - 1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        WRITERS[name](out, 2)
    except DataError as error:
        assert "the disk is full; free some space and run again" in str(error), error
        full += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    left = {path.name: len(path.read_bytes()) for path in out.iterdir()}
    assert set(left) == set(whole), left
    assert 0 not in left.values(), left
WRITERS[name](out, 2)
print(full)
"""
LABEL_MAPS = ("a.nii", "a.nii.gz", "a.nrrd", "a.dcm")
WRITERS = ("json", "array", "weights", "checkpoint", "history", "scores", "table", "case", "owner")
WRITERS += ("report", "onnx")


def sweep(writer, folder, *sizes):
    path = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])
    return subprocess.run(
        [sys.executable, "-c", SWEEP, writer, folder, *map(str, sizes)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("writer", [*WRITERS, *LABEL_MAPS])
def test_no_size_of_a_file_that_the_system_allows_loses_anything(writer, tmp_path):
    if writer in LABEL_MAPS:
        pytest.importorskip("highdicom", reason="the extra formats is not installed")
    if writer == "onnx":
        pytest.importorskip("onnx", reason="the extra onnx is not installed")
    run = sweep(writer, tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout) >= 10


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, encoding="utf-8", check=False)
    if made.returncode:
        pytest.skip(f"no small file system can be made here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kb", [0, 4, 12, 60, 100])
def test_weights_on_a_disk_that_is_full(kb, small_disk):
    """HDF5 failed as it closed, and at 12 KB it crashed."""
    from tiny import tiny_config

    from tunet_lib.config import VARIANTS
    from tunet_lib.files import DataError
    from tunet_lib.model import Model
    from tunet_lib.weights import read_weights, write_weights

    network = Model.untrained(VARIANTS["unet2d"], tiny_config(filters=8)).network
    path = small_disk / "model.weights.h5"
    write_weights(path, network)
    before = path.read_bytes()
    assert len(before) > 120_000
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(free - 1024 * kb))
    with pytest.raises(DataError, match=r"model\.weights\.h5: the disk is full"):
        write_weights(path, network)
    assert path.read_bytes() == before
    assert sorted(p.name for p in small_disk.iterdir()) == ["filler", "model.weights.h5"]
    (small_disk / "filler").unlink()
    write_weights(path, network)
    read_weights(path, network)
