"""What a study will take, by steps that are timed."""

import re

import pytest
from scans import scan_config, write_scans
from typer.testing import CliRunner

from tunet_lib import cli, plan
from tunet_lib.allowance import thread_limits
from tunet_lib.config import VARIANTS
from tunet_lib.patches import PatchDataset
from tunet_lib.plan import Pace, duration, measure, of_machine, of_network, of_study
from tunet_lib.runs import prepare_run
from tunet_lib.training import Training


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    write_scans(folder / "data", count=6)
    config = scan_config(levels=1, epochs=10, patches_per_case=8)
    return prepare_run(folder / "data", folder / "run", config)[0]


def pace(**changes):
    values = {"variant": "tunet", "steps": 100, "timed": 20, "step_s": 2.0, "watched": 50}
    values |= {"watch_s": 1.0, "save_s": 10.0, "save_mb": 400.0, "memory_gb": (3.0, None)}
    return Pace(**{**values, **changes})


def test_the_steps_are_those_of_a_training_and_nothing_is_left(run, monkeypatch):
    made = []
    init = Training.__init__
    monkeypatch.setattr(
        Training,
        "__init__",
        lambda self, *args, **options: (made.append(self), init(self, *args, **options))[1],
    )
    before = sorted(run.folder.rglob("*"))
    found = measure(run, VARIANTS["unet3d"])
    assert sorted(run.folder.rglob("*")) == before
    training = made[0]
    batches = PatchDataset(training.sources, VARIANTS["unet3d"], run.config, seed=(0,))
    assert (found.steps, found.watched) == (len(batches), len(training.watched)) == (12, 12)
    # The one that compiles, the one that tells how many, and those that count.
    assert training.network.optimizer.iterations == 2 + found.timed
    assert found.timed == plan.STEPS
    assert min(found.step_s, found.watch_s, found.save_s, found.save_mb, *found.memory_gb[:1]) > 0


def test_of_slow_steps_fewer_are_timed(run, monkeypatch):
    monkeypatch.setattr(plan, "PATIENCE_S", 0)
    assert measure(run, VARIANTS["lnet"]).timed == 2


def test_hours_disk_and_what_a_stop_loses(run):
    assert pace().epoch_s == 100 * 2 + 50 * 1 + 10
    sentences = "\n".join(of_study(run, [pace(), pace(variant="lnet", steps=0, save_mb=100.0)]))
    # TuNet and L-Net, with and without median, in two folds; 10 epochs of 260 s and of 60 s.
    assert "8 trainings of these networks are left: at most 3.6 hours" in sentences
    assert "disk: at most 4.5 GB" in sentences
    assert "at most 4.3 minutes" in sentences
    done = run.model_folder(("tunet", 0))
    done.path.mkdir(parents=True)
    done.weights.touch()
    assert "7 trainings" in of_study(run, [pace(), pace(variant="lnet")])[0]
    done.weights.unlink()


def test_a_network_in_a_sentence(run):
    expected = (
        "tunet: 2.00 s a step (20 timed), 100 steps and 4.3 minutes an epoch, at most 43.3 minutes "
        "a training; a checkpoint of 400 MB in 10.0 s; memory so far 3.0 GB"
    )
    assert of_network(run, pace()) == expected
    assert of_network(run, pace(memory_gb=(3.0, 7.25))).endswith("3.0 GB, on the GPU 7.2 GB")


def test_units():
    assert [duration(s) for s in (0.04, 119, 120, 7199, 7200)] == [
        *("0.0 seconds", "119.0 seconds", "2.0 minutes", "120.0 minutes", "2.0 hours")
    ]


def test_what_the_machine_allows(run, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    text = "\n".join(of_machine(run))
    assert "processors: 1; 1 threads for sums, 1 to prepare batches" in text
    assert re.search(r"memory: [\d.]+ GB free; disk: \d+ GB free", text)


def test_the_command(run, monkeypatch):
    for name, value in thread_limits(1).items():
        monkeypatch.setenv(name, value)  # as the command would, for all tests to come
    result = CliRunner().invoke(cli.app, ["plan", str(run.folder), "--variant", "lnet_median"])
    assert result.exit_code == 0, result.output
    assert "lnet_median: " in result.stdout
    assert "2 trainings of these networks are left" in result.stdout  # the twin was not asked for
    wrong = CliRunner().invoke(cli.app, ["plan", str(run.folder), "--variant", "vnet"])
    assert "unknown: vnet" in str(wrong.exception)


def test_a_network_that_is_too_large_is_named_and_the_others_told(run, monkeypatch):
    for name, value in thread_limits(1).items():
        monkeypatch.setenv(name, value)

    def measure(run, variant, real=plan.measure):
        if variant.name == "tunet":
            raise MemoryError("not enough memory")
        return real(run, variant)

    monkeypatch.setattr(plan, "measure", measure)
    arguments = ["plan", str(run.folder), "--variant", "tunet", "--variant", "lnet"]
    result = CliRunner().invoke(cli.app, arguments)
    assert "lnet: " in result.output
    assert str(result.exception) == "tunet: not enough memory"


def test_memory_that_does_not_suffice_ends_the_command_with_a_sentence(monkeypatch, capsys):
    def app():
        raise MemoryError("too little")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit):
        cli.main()
    assert "Error: too little" in capsys.readouterr().err
