"""The tunet command, from the help to a whole run."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scans import SHAPE, SPACING_MM, as_oriented, box_scan, save_network, scan_config, write_scans
from typer.main import get_command
from typer.testing import CliRunner

from tunet_lib import batch, cli, steps
from tunet_lib.cli import app
from tunet_lib.config import Config
from tunet_lib.evaluation import SYSTEMS
from tunet_lib.files import DataError, load_json
from tunet_lib.kits19 import save_case

VERBS = list(get_command(app).commands)


def tunet(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def main(monkeypatch, capsys):
    """Run the command as a shell does: its exit status, and what it wrote to stderr."""

    # `main` sets it for the processes that it starts, and not for those of other tests.
    monkeypatch.setenv("PYTHONSAFEPATH", "")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tunet", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_help_on_each_verb(verb):
    result = tunet(verb, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output
    assert verb in tunet("--help").output


def test_help_is_quick_and_loads_no_tensorflow():
    # Processor time: a busy machine is no fault of the command.
    code = (
        "import sys, time; from tunet_lib.cli import main; sys.argv = ['tunet', '--help']\n"
        "try: main()\nexcept SystemExit:\n"
        " print(time.process_time(), len({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    shown = [
        subprocess.run(
            command, capture_output=True, encoding="utf-8", check=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert "Not a medical device" in "".join(shown[0])
    times_s, loaded = zip(*(lines[-1].split() for lines in shown), strict=True)
    assert min(map(float, times_s)) < 1
    assert set(loaded) == {"0"}


def test_the_help_says_how_long_a_run_takes():
    assert "half a day" in tunet("run", "--help").output


def test_phantoms(tmp_path):
    result = tunet("phantom", tmp_path / "few", "--count", "1")
    assert result.exit_code == 0
    assert (tmp_path / "few" / "case_00000" / "imaging.nii.gz").exists()
    assert (tmp_path / "few" / "kits.json").exists()


def test_preset_configuration_and_epochs(tmp_path):
    assert cli._config("paper", None, 3) == Config.preset("paper", epochs=3)
    scan_config(seed=7).save(tmp_path / "mine.json")
    assert cli._config("course", tmp_path / "mine.json", None) == scan_config(seed=7)
    assert cli._config("course", tmp_path / "mine.json", 9) == scan_config(seed=7, epochs=9)
    assert cli._config("course", precision="bfloat16").precision == "bfloat16"
    assert cli._config("course", epochs=100).stop_patience == 100


def test_hours_are_not_spent_before_a_name_is_found_wrong(monkeypatch, tmp_path):
    monkeypatch.setattr(steps, "prepare", lambda *_, **__: pytest.fail("cases are prepared"))
    for wrong in (["--variant", "tunnet"], ["--fold", "5"]):
        assert isinstance(tunet("run", "data", "run", *wrong).exception, DataError)
    monkeypatch.setattr("tunet_lib.pairs.score_pairs", lambda *_, **__: pytest.fail("is scored"))
    (tmp_path / "case_00000.nii.gz").touch()
    refused = tunet("score", tmp_path, tmp_path, "--against", tmp_path / "nowhere")
    assert "nowhere: is no folder" in str(refused.exception)


@pytest.mark.parametrize("verb", ["prepare", "run"])
def test_a_run_is_prepared_with_the_preset_that_is_named(monkeypatch, verb):
    chosen = []
    monkeypatch.setattr(steps, "prepare", lambda data, folder, config, **_: chosen.append(config))
    for step in ("train", "evaluate", "table"):
        monkeypatch.setattr(steps, step, lambda *_, **__: {})
    for option in ([], ["--preset", "paper", "--epochs", 3, "--precision", "bfloat16"]):
        result = tunet(verb, "data", "run", *option)
        assert result.exit_code == 0, result.output
    paper = Config.preset("paper", epochs=3, precision="bfloat16")
    assert chosen == [Config.preset("course"), paper]


def test_trainings_are_here_or_in_processes_of_their_own_as_asked(monkeypatch):
    asked = []

    def noted(name, result=None):
        return lambda *given, **options: asked.append((name, *given, options)) or result

    monkeypatch.setattr(steps, "train_here", noted("here", {}))
    monkeypatch.setattr(steps, "train", noted("apart", {}))
    options = ["--variant", "lnet", "--fold", "1"]
    for more in (["--here"], ["--jobs", 2]):
        assert tunet("train", "run", *options, *more).exit_code == 0
    assert tunet("train", "run", "--task", 3).exit_code == 0
    assert asked == [
        ("here", Path("run"), ["lnet"], [1], {"number": None}),
        ("apart", Path("run"), ["lnet"], [1], {"jobs": 2}),
        ("here", Path("run"), None, None, {"number": 3}),
    ]


def test_a_seed_below_zero_is_refused(tmp_path):
    result = tunet("phantom", tmp_path / "few", "--seed", "-1")
    assert result.exit_code == 2
    assert not (tmp_path / "few").exists()


def test_bad_data_ends_with_one_line_and_status_1(main, tmp_path):
    status, error = main("prepare", tmp_path / "absent", tmp_path / "run")
    assert status == 1
    assert error.count("\n") == 1
    assert error.startswith(f"Error: {tmp_path / 'absent'}: cannot be read")
    assert "Traceback" not in error


def test_a_message_with_brackets_is_shown_whole(main, monkeypatch):
    def fail(_):
        raise DataError("x.nii: has voxel size [nan, 1.0] mm; correct [/bold]")

    monkeypatch.setattr("tunet_lib.runs.open_run", fail)
    status, error = main("table", "anywhere")
    assert (status, error) == (1, "Error: x.nii: has voxel size [nan, 1.0] mm; correct [/bold]\n")


@pytest.mark.parametrize("verb", ["train", "evaluate", "table"])
def test_what_is_no_run_folder(main, tmp_path, verb):
    status, error = main(verb, tmp_path)
    assert status == 1
    assert "start one with `tunet prepare`" in error


def test_one_bad_case_is_reported_and_the_rest_prepared(main, tmp_path):
    cases = write_scans(tmp_path / "data")
    cases[1].image_path.write_bytes(cases[1].image_path.read_bytes()[:-50])
    scan_config().save(tmp_path / "tiny.json")
    arguments = tmp_path / "data", tmp_path / "run", "--config", tmp_path / "tiny.json"
    status, error = main("prepare", *arguments)
    assert status == 1
    assert error.count("\n") == 1
    assert "case_00001:" in error
    assert "cut short" in error
    prepared = sorted(path.parent.name for path in (tmp_path / "run").rglob("case.json"))
    assert prepared == ["case_00000", "case_00002", "case_00003"]
    assert "--leave-out case_00001" in error
    for option in (["--leave-out", "case_00001"], []):  # the folder remembers it
        result = tunet("prepare", *arguments, *option)
        assert result.exit_code == 0, result.output
        assert "case_00001" in result.output
    dealt = load_json(tmp_path / "run" / "run.json")["folds"]
    assert sorted(name for fold in dealt for name in fold) == prepared


def test_what_failed_early_is_reported_even_if_a_later_step_cannot_go_on(main, monkeypatch):
    def impossible(*_):
        raise DataError("nothing is trained yet")

    monkeypatch.setattr(steps, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(steps, "train", lambda *_, **__: {"tunet, fold 3": "out of memory"})
    monkeypatch.setattr(steps, "evaluate", impossible)
    status, error = main("run", "data", "run")
    assert status == 1
    assert error.splitlines() == [
        "tunet, fold 3: out of memory",
        "Error: nothing is trained yet",
    ]


# One level: a network is built in a moment.
TINY = scan_config(levels=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained networks that still answer with both labels and background."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("tunet_seb", "lnet_median")):
        save_network(folder / name, name, TINY, seed)
    return folder


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kits") / "case_00000"
    return save_case(folder, box_scan(1)[0], spacing_mm=SPACING_MM).image_path


def predicted(models, ct, output):
    result = tunet("predict", ct, "--models", models, "--output", output)
    assert result.exit_code == 0, result.output
    return nib.load(output)


@pytest.fixture(scope="module")
def label(models, ct, tmp_path_factory):
    """The prediction for the CT, in a file that was there already."""
    path = tmp_path_factory.mktemp("labels") / "label.nii.gz"
    path.write_bytes(b"old")
    return predicted(models, ct, path)


def test_prediction_keeps_shape_and_affine(label, ct):
    image = nib.load(ct)
    assert label.shape == image.shape
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-6)
    assert label.get_data_dtype() == np.uint8
    assert len(np.unique(label.dataobj)) > 1, "a constant map would prove little"


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ([], {"windows": "mask", "batch_size": 4, "tumor_rule": True}),
        (
            ["--windows", "all", "--batch-size", 3, "--no-tumor-rule"],
            {"windows": "all", "batch_size": 3, "tumor_rule": False},
        ),
    ],
)
def test_how_to_predict_is_passed_on(models, ct, tmp_path, monkeypatch, options, how):
    given = []

    def predict_scan(scan, networks, *, on_part, **options):
        given.append(options)
        return np.zeros(scan.shape, np.uint8)

    monkeypatch.setattr(batch, "predict_scan", predict_scan)
    result = tunet("predict", ct, "--models", models, "-o", tmp_path / "a.nii.gz", *options)
    assert result.exit_code == 0, result.output
    assert given == [how]


def test_an_output_that_is_named_may_be_there_already(label):
    assert label.shape == SHAPE


@pytest.mark.parametrize("axes", ["RAS", "PIR"])
def test_any_orientation_gives_the_same_labels(models, ct, label, tmp_path, axes):
    """A flipped and transposed copy, voxel for voxel."""
    as_oriented(nib.load(ct), axes).to_filename(tmp_path / "turned.nii.gz")
    turned = predicted(models, tmp_path / "turned.nii.gz", tmp_path / "turned_label.nii.gz")
    assert "".join(nib.aff2axcodes(turned.affine)) == axes
    expected = as_oriented(label, axes)
    np.testing.assert_array_equal(np.asarray(turned.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(turned.affine, expected.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((9, 40, 21), (5.0, 1.5, 2.5)), ((40, 50, 60), (4.0, 4.0, 4.0))],
    ids=["uneven", "larger than the field of view"],
)
def test_any_shape_and_spacing(models, tmp_path, shape, spacing_mm):
    volume_hu = np.random.default_rng(0).normal(0, 100, shape).astype(np.int16)
    case = save_case(tmp_path / "case_00000", volume_hu, spacing_mm=spacing_mm)
    label = predicted(models, case.image_path, tmp_path / "label.nii")
    assert label.shape == shape


def test_default_weights_are_said_to_come_from_synthetic_cts(models, ct, tmp_path, monkeypatch):
    # Others in their place, which are quicker.
    monkeypatch.setattr("tunet_lib.predict.WIDE_WEIGHTS", models)
    result = tunet("predict", ct, "-o", tmp_path / "label.nii.gz")
    assert result.exit_code == 0, result.output
    assert "trained on synthetic CTs" in result.output
    assert nib.load(tmp_path / "label.nii.gz").shape == SHAPE


def test_the_label_map_goes_here_by_default(main, models, ct, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tunet("predict", ct, "--models", models).exit_code == 0
    assert (tmp_path / "case_00000_label.nii.gz").exists()
    status, error = main("predict", ct, "--models", models)
    assert status == 1
    assert "is there already" in error


def test_the_ct_is_never_overwritten(main, models, ct):
    before = ct.read_bytes()
    status, error = main("predict", ct, "--models", models, "-o", ct)
    assert status == 1
    assert "is the CT itself" in error
    assert ct.read_bytes() == before


# Waits before its label map gets its name, until another one has come as far.
MEET = """
import os, sys, time
from pathlib import Path
from tunet_lib.cli import main

rename, met, deadline = os.replace, Path(sys.argv.pop(1)), time.monotonic() + 120

def meet(temporary, path):
    if str(path) == sys.argv[-1]:
        (met / str(os.getpid())).touch()
        while len(os.listdir(met)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    rename(temporary, path)

os.replace = meet
main()
"""


@pytest.mark.slow
def test_two_that_write_one_label_map_at_once(models, ct, label, tmp_path):
    output, met = tmp_path / "out" / "label.nii.gz", tmp_path / "met"
    met.mkdir()
    command = [sys.executable, "-c", MEET, met, "predict", ct, "--models", models, "-o", output]
    both = [subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert len(list(met.iterdir())) == 2
    assert list(output.parent.iterdir()) == [output]
    np.testing.assert_array_equal(nib.load(output).dataobj, label.dataobj)


def test_weights_that_are_missing_are_an_error(main, ct, tmp_path, monkeypatch):
    monkeypatch.setattr("tunet_lib.predict.WIDE_WEIGHTS", tmp_path / "absent")
    status, error = main("predict", ct)
    assert status == 1
    assert "absent: holds no trained TuNet" in error


def test_a_missing_or_unreadable_ct(main, models, tmp_path):
    status, error = main("predict", tmp_path / "absent.nii.gz", "--models", models)
    assert status == 1
    assert "absent.nii.gz: does not exist" in error
    (tmp_path / "page.nii.gz").write_text("<!DOCTYPE html>")
    status, error = main("predict", tmp_path / "page.nii.gz", "--models", models)
    assert status == 1
    assert "web page" in error


def test_an_output_of_another_kind(main, models, ct, tmp_path):
    status, error = main("predict", ct, "--models", models, "-o", tmp_path / "label.png")
    assert status == 1
    assert "must end in .nii.gz or .nii" in error


def test_models_of_two_configurations(main, ct, tmp_path):
    save_network(tmp_path / "models" / "a", "tunet", TINY)
    save_network(tmp_path / "models" / "b", "tunet", replace(TINY, patch_stride=(8, 8, 8)))
    status, error = main("predict", ct, "--models", tmp_path / "models")
    assert status == 1
    assert "patch_stride differ" in error


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path):
    """Real trainings in processes: one fails, one case is bad; then all is put right."""
    cases = write_scans(tmp_path / "data", count=5)
    cases[4].image_path.write_bytes(b"")
    TINY.save(tmp_path / "tiny.json")
    folder = tmp_path / "run"
    arguments = [tmp_path / "data", folder, "--config", tmp_path / "tiny.json"]
    assert "case_00004" in str(tunet("run", *arguments).exception)
    assert not (folder / "models").exists()
    shutil.rmtree(tmp_path / "data" / "case_00004")
    assert tunet("prepare", *arguments).exit_code == 0
    sabotaged = folder / "models" / "fold_0" / "unet2d"
    replace(TINY, l2=0.5).save(sabotaged / "config.json")

    arguments += ["--variant", "unet2d", "--jobs", 2]
    first = tunet("run", *arguments)
    assert first.exit_code == 1
    (bad_training,) = first.stderr.strip().splitlines()
    assert bad_training.startswith("unet2d, fold 0: ")
    assert "another configuration (l2 differ)" in bad_training
    assert len((folder / "scores.csv").read_text().splitlines()) == 1 + 2

    shutil.rmtree(sabotaged)
    before = times(folder / "models" / "fold_1")
    second = tunet("run", *arguments)
    assert (second.exit_code, second.stderr) == (0, "")
    assert times(folder / "models" / "fold_1") == before
    assert "2      4" in table_row(second, "U-Net 2D")
    assert all(title in second.stdout for title in SYSTEMS.values())
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["cases"] == 4
    assert provenance["seed"] == 2019
    assert provenance["config"]["epochs"] == 1
    assert set(provenance["wall_time_s"]) == {"prepare", "train", "evaluate"}
    assert provenance["total_time_s"] > provenance["training_time_s"]["unet2d"] > 0
    assert {"python", "keras", "tensorflow", "numpy"} <= set(provenance["versions"])
    assert provenance["machine"]["cores"] >= 1

    before = times(folder / "models", folder / "scores", folder / "provenance.json")
    third = tunet("run", *arguments)
    assert third.exit_code == 0
    assert table_row(third, "U-Net 2D") == table_row(second, "U-Net 2D")
    assert times(folder / "models", folder / "scores", folder / "provenance.json") == before
    assert table_row(tunet("table", folder), "U-Net 2D") == table_row(third, "U-Net 2D")


def times(*folders):
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {path: path.stat().st_mtime_ns for path in paths if path.is_file()}


def table_row(result, title):
    return next(line for line in result.stdout.splitlines() if line.startswith(f"{title}  "))
