"""Versions, machine and commit."""

import subprocess
import sys

from tunet_lib import environment
from tunet_lib.environment import git_state, machine, versions


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
