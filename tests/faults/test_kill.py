"""Killed at any single operation on a file, and started again: all ends as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scans import scan_config, write_scans

from tunet_lib.files import load_json
from tunet_lib.runs import prepare_run

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}

# A study without its arithmetic: every file that a study writes, in its order. Python tells of
# each operation before it is done, and a fork is killed at that moment.
STUDY = """
import os, signal, sys, warnings, zipfile
from pathlib import Path
from scans import scan_config
from tiny import SCORE_ROWS
from tunet_lib import model_folder
from tunet_lib.config import VARIANTS
from tunet_lib.evaluation import write_scores
from tunet_lib.history import write_history
from tunet_lib.owner import take_over
from tunet_lib.runs import prepare_run
from tunet_lib.weights import write_weights

warnings.simplefilter("ignore")
data, folder = Path(sys.argv[1]), Path(sys.argv[2])
model_folder.git_state = lambda: None
LOG = {"epoch": 1, "loss": -0.1, "val_loss": -0.2, "learning_rate": 0.1, "attempts": 1, "time_s": 1}

class Network:
    compiled = False

    def save(self, stream):
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("model.weights.h5", bytes(range(256)) * 50)

def study(folder):
    run, _ = prepare_run(data, folder, scan_config())
    model = run.model_folder(("tunet", 0))
    model.note_cases(run.folds[1])
    model.note_code()
    owner = take_over(model.path)
    model.describe(VARIANTS["tunet"], run.config)
    write_history(model.history_path, [LOG], before=owner.check)
    write_weights(model.weights, Network(), before=owner.check)
    owner.leave()
    write_scores(folder / "scores.csv", SCORE_ROWS)

def killed_at(limit, folder):
    pid = os.fork()
    if pid:
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    count = 0

    def look(event, arguments):
        nonlocal count
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            if str(arguments[0]).startswith(str(folder)):
                count += 1
                if count == limit:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    study(folder)
    os._exit(0)

def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

study(folder / "straight")
expected = content(folder / "straight")
limit = 1
while killed_at(limit, folder / f"killed_{limit}"):
    study(folder / f"killed_{limit}")
    found = content(folder / f"killed_{limit}")
    assert found.keys() == expected.keys(), (limit, found.keys() ^ expected.keys())
    assert found == expected, limit
    limit += 3
print(limit)
"""


def test_killed_at_one_operation_after_another(tmp_path):
    write_scans(tmp_path / "data", 2)
    run = subprocess.run(
        [sys.executable, "-c", STUDY, tmp_path / "data", tmp_path],
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout) > 60


TRAIN = "import sys; from tunet_lib.cli import main; main()"


def start(folder):
    """Train in a process of the command, which starts one of its own for the training."""
    command = [sys.executable, "-c", TRAIN, "train", folder, "--variant", "unet2d", "--fold", "0"]
    return subprocess.Popen(
        list(map(str, command)), env=ENVIRONMENT, stdout=subprocess.DEVNULL, start_new_session=True
    )


@pytest.mark.slow
def test_the_parent_alone_is_killed_and_started_again(tmp_path):
    write_scans(tmp_path / "data", 4)
    config = scan_config(levels=1, epochs=12, stop_patience=12)
    runs = [prepare_run(tmp_path / "data", tmp_path / name, config)[0] for name in ("a", "b")]
    straight, disturbed = (run.model_folder(("unet2d", 0)) for run in runs)
    assert start(runs[0].folder).wait(300) == 0

    parent = start(runs[1].folder)
    while not disturbed.checkpoint.exists():
        assert parent.poll() is None
        time.sleep(0.02)
    first = load_json(disturbed.path / "owner.json")
    parent.send_signal(signal.SIGKILL)
    parent.wait(60)
    assert start(runs[1].folder).wait(300) == 0
    # The child of the first one is gone, and left nothing.
    with pytest.raises(ProcessLookupError):
        os.kill(first["process"]["pid"], 0)
    names = [sorted(path.name for path in f.path.iterdir()) for f in (straight, disturbed)]
    assert names[0] == names[1]
    assert straight.weights.read_bytes() == disturbed.weights.read_bytes()
    losses = [[log["val_loss"] for log in f.history()] for f in (straight, disturbed)]
    np.testing.assert_array_equal(*losses)
    assert len(losses[0]) == 12
