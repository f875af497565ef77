"""Processors and memory that are allowed, whoever allows them."""

import os

import psutil
import pytest

from tunet_lib import allowance
from tunet_lib.allowance import (
    default_jobs,
    default_workers,
    gpu_is_promised,
    gpus,
    loaders,
    memory_bytes,
    processors,
    thread_limits,
    threads,
)

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 64 processors and 500 GB, whose control groups are files of this test."""
    monkeypatch.setattr(allowance.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(allowance.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    memory = type("Memory", (), {"available": 500 * GB})
    monkeypatch.setattr(allowance.psutil, "virtual_memory", lambda: memory)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "CUDA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(allowance, "CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(allowance, "OWN_CGROUPS", tmp_path / "own")

    def put(own="", **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "fs" / name.replace("__", "/").replace("DOT", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return put


def test_this_machine_allows_something():
    assert 1 <= processors() <= os.cpu_count()
    assert 0 < memory_bytes() <= psutil.virtual_memory().total
    assert default_workers() >= 1


def test_without_a_word_all_of_it_is_allowed(machine):
    assert processors() == 64
    assert memory_bytes() == 500 * GB
    assert default_workers() == 64


def test_the_affinity(machine, monkeypatch):
    """python/cpython#80235: one processor, and as many processes as the machine has cores."""
    monkeypatch.setattr(allowance.os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert processors() == default_workers() == default_jobs() == 1


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 64),
        ("400000 100000", 4),
        ("350000 100000", 3),
        ("50000 100000", 1),
        ("", 64),
        ("nonsense", 64),
        ("100000 0", 64),
    ],
)
def test_processors_of_a_control_group_of_version_2(machine, quota, expected):
    machine("0::/job/step\n", job__step__cpuDOTmax=quota, job__cpuDOTmax="max 100000")
    assert processors() == expected


def test_the_least_of_all_groups_around_counts(machine):
    machine("0::/job/step\n", job__step__cpuDOTmax="800000 100000", job__cpuDOTmax="200000 100000")
    assert processors() == 2


def test_version_2_within_a_container_that_does_not_see_the_path(machine):
    machine("0::/host/only\n", cpuDOTmax="300000 100000")
    assert processors() == 3


def test_control_groups_of_version_1(machine):
    quota = {"cpu,cpuacct__a__cpuDOTcfs_quota_us": "150000"}
    limit = {"memory__b__memoryDOTlimit_in_bytes": str(8 * GB)}
    machine(
        "5:memory:/b\n4:cpu,cpuacct:/a\n",
        **quota,
        **limit,
        **{"cpu,cpuacct__a__cpuDOTcfs_period_us": "50000"},
        memory__b__memoryDOTusage_in_bytes=str(5 * GB),
        memory__b__memoryDOTstat=f"inactive_file 5\ntotal_inactive_file {2 * GB}\n",
    )
    assert processors() == 3
    assert memory_bytes() == (8 - 5 + 2) * GB
    machine("4:cpu,cpuacct:/a\n", **{"cpu,cpuacct__a__cpuDOTcfs_quota_us": "-1"})
    assert processors() == 64


def test_memory_of_a_control_group_of_version_2(machine):
    machine(
        "0::/job\n",
        job__memoryDOTmax=str(4 * GB),
        job__memoryDOTcurrent=str(3 * GB),
        job__memoryDOTstat=f"file 7\ninactive_file {GB}\n",
    )
    assert memory_bytes() == 2 * GB
    assert default_workers() == 1
    machine("0::/job\n", job__memoryDOTmax="max")
    assert memory_bytes() == 500 * GB


def test_slurm_where_it_does_not_enforce_what_it_gives(machine, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "12")
    assert processors() == 12
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1000")
    assert memory_bytes() == 12_000 * 2**20
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert processors() == 6
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4000")
    assert memory_bytes() == 4000 * 2**20
    for nonsense in ("", "2(x3)", "-1", "²"):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", nonsense)
        assert processors() == 12


def test_one_job_a_processor_but_no_more_than_four_and_one_a_gpu(machine, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allowance.Path, "glob", lambda *_: iter(()))
    assert default_jobs() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert (default_jobs(), loaders()) == (3, 1)
    monkeypatch.setattr(allowance.Path, "glob", lambda *_: iter(["/dev/nvidia3", "/dev/nvidia0"]))
    assert (default_jobs(), gpus(), loaders()) == (2, ["0", "1"], 3)
    monkeypatch.setattr(
        allowance.Path, "glob", lambda _, what: iter(["/dev/dxg"] if what == "dxg" else [])
    )
    assert (default_jobs(), gpus()) == (1, ["0"])  # the Linux of Windows
    monkeypatch.setattr(allowance.Path, "glob", lambda *_: iter(["/dev/nvidia3", "/dev/nvidia0"]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert (default_jobs(), gpus()) == (1, ["3"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # it is there, and not to be seen
    assert (default_jobs(), gpus()) == (3, [])


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ["0", "1", "2"]),
        ({"SLURM_JOB_ID": "5"}, []),  # a job that asked for none, on a node that has some
        ({"SLURM_JOB_ID": "5", "SLURM_JOB_GPUS": "1,2"}, ["1", "2"]),
        ({"SLURM_JOB_ID": "5", "SLURM_JOB_GPUS": "1,2", "SLURM_STEP_GPUS": "2"}, ["2"]),
        # Where Slurm shuts the others off, what is left counts from 0.
        (
            {"SLURM_JOB_ID": "5", "SLURM_JOB_GPUS": "1,2", "CUDA_VISIBLE_DEVICES": "0,1"},
            ["0", "1"],
        ),
        ({"SLURM_JOB_ID": "5", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}, ["MIG-a", "MIG-b"]),
    ],
)
def test_gpus_of_the_job_and_not_of_the_node(machine, monkeypatch, environment, found):
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names = [f"/dev/nvidia{number}" for number in range(3)]
    monkeypatch.setattr(allowance.Path, "glob", lambda *_: iter(names))
    assert gpus() == found


@pytest.mark.parametrize(
    ("environment", "promised"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, False),  # by the user, not by Slurm
        ({"SLURM_JOB_GPUS": "0"}, True),
        ({"SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "0"}, True),
        ({"SLURM_GPUS_ON_NODE": "0"}, False),
        ({"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "-1"}, False),  # put aside on purpose
    ],
)
def test_whether_slurm_gave_a_gpu(monkeypatch, environment, promised):
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert gpu_is_promised() == promised


def test_threads_are_those_that_tensorflow_is_told(machine, monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert threads() == 3
    for name, value in thread_limits(2).items():
        monkeypatch.setenv(name, value)
    assert threads() == 2
