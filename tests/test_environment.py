"""Versions, machine and commit."""

import os
import platform
import subprocess
import sys

import pytest

from tunet_lib import environment
from tunet_lib.environment import git_state, machine, versions


def test_versions_and_machine():
    assert versions()["numpy"]
    assert versions()["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert machine()["cores"] >= 1
    assert machine()["cpu"]


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="another kind of processor"
)
@pytest.mark.parametrize(("given", "taken"), [(None, "1"), ("0", "0")])
def test_tensorflow_is_told_of_onednn_before_it_is_loaded(given, taken):
    variables = {name: os.environ[name] for name in os.environ if name != "TF_ENABLE_ONEDNN_OPTS"}
    if given:
        variables["TF_ENABLE_ONEDNN_OPTS"] = given
    code = """
import os, sys
class Watch:
    def find_spec(self, name, *rest):
        if name == "tensorflow":
            print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
sys.meta_path.insert(0, Watch())
import tunet_lib.quiet
"""
    said = subprocess.run(
        [sys.executable, "-c", code], env=variables, check=True, capture_output=True, text=True
    )
    assert said.stdout.strip() == taken


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
