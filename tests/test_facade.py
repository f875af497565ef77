"""What `import tunet_lib` offers by itself, and what it costs."""

import subprocess
import sys

import numpy as np
import pytest
from scans import save_network, scan_config, write_scans

import tunet_lib
from tunet_lib.files import DataError
from tunet_lib.predict import predict_scan
from tunet_lib.scans import load_label


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.split()


IMPORT = """
import sys, time
before = time.process_time()
import tunet_lib as tunet
print(time.process_time() - before, *{"tensorflow", "keras", "jax", "scipy"} & set(sys.modules))
"""


def test_the_import_is_quick_and_loads_no_tensorflow():
    # Processor time, and the best of three: a busy machine is no fault of the library.
    runs = [run(IMPORT) for _ in range(3)]
    times_s, *loaded = zip(*runs, strict=True)
    assert loaded == []
    assert min(map(float, times_s)) < 0.2


SEGMENT = """
import sys
import tunet_lib as tunet

scan = tunet.load_scan(sys.argv[1])
placement = tunet.Placement(scan, tunet.Config.load(sys.argv[2] + "/config.json"))
print(*placement.grid_shape, "keras" in sys.modules)
label = tunet.predict_scan(scan, sys.argv[2])
tunet.save_label(label, scan, sys.argv[3])
print(tunet.Model.load(sys.argv[2]).variant.name)
try:
    tunet.load_scan("absent.nii.gz")
except tunet.DataError as error:
    print(str(error).partition(":")[0])
"""


@pytest.mark.slow
def test_from_a_file_to_an_answer(tmp_path):
    case = write_scans(tmp_path, 1)[0]
    config = scan_config(levels=1)
    save_network(tmp_path / "model", "tunet", config)
    said = run(SEGMENT, case.image_path, tmp_path / "model", tmp_path / "label.nii.gz")
    *shape, needs_keras, variant, absent = said
    assert tuple(map(int, shape)) == config.grid_shape
    assert (needs_keras, variant, absent) == ("False", "tunet", "absent.nii.gz")
    assert load_label(tmp_path / "label.nii.gz").shape == load_label(case.label_path).shape


def test_each_name_is_there_and_no_other():
    for name in tunet_lib.__all__:
        assert getattr(tunet_lib, name) is not None
    assert tunet_lib.load_scan.__module__ == "tunet_lib.scans"
    assert tunet_lib.predict_scan.__module__ == "tunet_lib.predict"
    assert tunet_lib.Model.__module__ == "tunet_lib.model"
    with pytest.raises(AttributeError, match="has no attribute 'load_ct'"):
        tunet_lib.load_ct  # noqa: B018


def test_names_are_completed_before_they_are_loaded():
    assert set(tunet_lib.__all__) <= set(dir(tunet_lib))


@pytest.mark.parametrize("no_scan", ["ct.nii.gz", np.zeros((4, 4, 4))])
def test_what_is_no_scan_is_told_how_to_become_one(no_scan):
    with pytest.raises(DataError, match=r"a scan is needed, not .*: load_scan"):
        predict_scan(no_scan)
