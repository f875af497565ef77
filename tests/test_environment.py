"""Versions, machine and commit."""

import subprocess
import sys

from tunet_lib import environment
from tunet_lib.environment import (
    default_jobs,
    default_workers,
    git_state,
    machine,
    processors,
    versions,
)


def test_versions_and_machine():
    assert versions()["numpy"]
    assert versions()["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert machine()["cores"] >= 1
    assert machine()["cpu"]


def test_commit_of_a_checkout_only(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert git_state() is None

    def git(*arguments):
        options = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "environment.py").write_text("one")
    git("init")
    assert git_state() is None  # the checkout is of something else
    git("add", "environment.py")
    git("commit", "-m", "first")
    assert git_state()["dirty"] is False
    assert len(git_state()["commit"]) == 40
    (tmp_path / "environment.py").write_text("two")
    assert git_state()["dirty"] is True


def test_only_the_processors_that_are_allowed_count(monkeypatch):
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert processors() == default_workers() == 1


def test_one_job_a_processor_but_no_more_than_four(monkeypatch):
    monkeypatch.setattr(environment.Path, "glob", lambda *_: iter(()))
    monkeypatch.setattr(environment, "processors", lambda: 3)
    assert default_jobs() == 3
    monkeypatch.setattr(environment, "processors", lambda: 64)
    assert default_jobs() == 4
    monkeypatch.setattr(environment.Path, "glob", lambda *_: iter(["/dev/nvidia3"]))
    assert default_jobs() == 1
