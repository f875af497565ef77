import errno
import os
import resource
import stat
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tunet_lib.files import (
    DIGEST_BYTES,
    DataError,
    atomic_path,
    check_table_name,
    check_writable,
    load_array,
    load_json,
    noting,
    save_array,
    save_json,
)
from tunet_lib.process import this_process


def test_json_and_array_come_back(tmp_path):
    save_json(tmp_path / "new" / "a.json", {"b": [1, 2.5]})
    save_array(tmp_path / "new" / "a.npy", np.arange(6).reshape(2, 3))
    assert load_json(tmp_path / "new" / "a.json") == {"b": [1, 2.5]}
    array = load_array(tmp_path / "new" / "a.npy")
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not array.flags.writeable
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.json", "a.npy"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    save_json(tmp_path / "a.json", "old")

    def write_half():
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert load_json(tmp_path / "a.json") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_temporary_name_keeps_the_suffixes(tmp_path):
    with atomic_path(tmp_path / "model.weights.h5") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("model.weights.h5")


NAMES = [b"\xe9t\xe9.nii.gz", "東京.nii.gz".encode(), "ü".encode() * 100 + b".nii.gz", b"\xff\xfe"]


@pytest.mark.parametrize("letters", ["C", "C.UTF-8"])
def test_a_name_of_any_bytes_on_a_system_of_any_letters(tmp_path, letters):
    """A disk that was written with Latin-1, and a batch system that sets LANG to C."""
    code = "import os, sys; from tunet_lib.files import *\n"
    code += "for name in sys.argv[1:]:\n  check_writable(name); save_json(name, 1)\n"
    environment = {"LC_ALL": letters, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run(
        [sys.executable, "-c", code, *NAMES],
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
        cwd=tmp_path,
        check=True,
    )
    assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted(NAMES)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_written_file_has_the_permissions_that_the_umask_says(tmp_path, mask):
    old = os.umask(mask)
    try:
        (tmp_path / "usual").touch()
        save_json(tmp_path / "a.json", 1)
        assert os.umask(mask) == mask  # not even for a moment is it another: threads share it
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o666 & ~mask


def test_a_name_as_long_as_the_system_takes(tmp_path):
    save_json(tmp_path / ("a" * 250 + ".json"), 1)
    save_json(tmp_path / ("ä" * 125 + ".json"), 1)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(DataError, match="name too long"):
        save_json(tmp_path / ("a" * 251 + ".json"), 1)


@pytest.mark.parametrize("name", ["a" * 256, "ä" * 128])
def test_a_name_that_no_file_can_have_is_told_before_anything_is_computed(tmp_path, name):
    with pytest.raises(DataError, match="cannot write here"):
        check_writable(tmp_path / name)
    check_writable(tmp_path / name[1:])
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path):
    own = this_process()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    living = f".tmp-{child.pid}-{int(psutil.Process(child.pid).create_time())}-{own.host}~1~a.json"
    theirs = [
        living,
        f".tmp-{own.pid}-{own.start_s}-{own.host}~2~a.json",  # another thread's
        f".tmp-{own.pid}-5-elsewhere~3~a.json",
        ".tmp-of-another-program",
        "a.txt",
    ]
    dead = f".tmp-{own.pid}-{own.start_s - 100}-{own.host}~4~a.json"
    for name in (dead, *theirs):
        (tmp_path / name).touch()
    save_json(tmp_path / "a.json", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*theirs, "a.json"])
    child.kill()
    child.wait()
    save_json(tmp_path / "a.json", 1)
    assert not (tmp_path / living).exists()


def test_leftovers_of_another_machine_are_removed_after_a_week(tmp_path):
    """Nobody can tell from here whether their process lives; none is so long about one file."""
    names = [f".tmp-{pid}-5-elsewhere~0~a.json" for pid in (1, 2)]
    for name, days in zip(names, (6, 8), strict=True):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    save_json(tmp_path / "a.json", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [names[0], "a.json"]


def test_a_name_with_a_line_break_leaves_no_leftover_behind(tmp_path):
    child = f".tmp-99999999-5-{this_process().host}~0~a\nb.json"
    (tmp_path / child).touch()
    save_json(tmp_path / "a.json", 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_is_called_before_the_rename_may_refuse_it(tmp_path):
    save_json(tmp_path / "a.json", "old")

    def refuse():
        raise DataError("taken over")

    with (
        pytest.raises(DataError, match="taken over"),
        atomic_path(tmp_path / "a.json", before=refuse) as temporary,
    ):
        temporary.write_text("new")
    assert load_json(tmp_path / "a.json") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "cannot write here"),
        (errno.EROFS, "cannot write here"),
    ],
)
def test_failed_rename_is_a_data_error(tmp_path, monkeypatch, number, message):
    def fail(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match=rf"a\.json: {message}"):
        save_json(tmp_path / "a.json", 1)
    assert list(tmp_path.iterdir()) == []


def test_write_cut_short_by_the_system_is_a_data_error(tmp_path):
    save_array(tmp_path / "a.npy", np.arange(3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(DataError, match=r"a\.npy: the disk is full"):
            save_array(tmp_path / "a.npy", np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_array(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_folder_that_is_a_file_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write here"):
        save_json(tmp_path / "file" / "a.json", 1)


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(OSError, match="broken") as caught, atomic_path(tmp_path / "a"):
        raise OSError(errno.EIO, "broken")
    assert not isinstance(caught.value, DataError)


def test_bad_json_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"no\.json: cannot be read"):
        load_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"bad\.json: is not valid JSON"):
        load_json(tmp_path / "bad.json")


def test_a_mark_that_windows_editors_put_before_a_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"epochs":\r\n 3}\r\n')
    assert load_json(tmp_path / "a.json") == {"epochs": 3}


def test_of_two_values_of_one_name_none_is_chosen(tmp_path):
    (tmp_path / "a.json").write_text('[{"epochs": 3, "folds": 5, "epochs": 4}]')
    with pytest.raises(DataError, match="'epochs' is there twice"):
        load_json(tmp_path / "a.json")


def test_a_table_replaces_no_ct(tmp_path):
    check_table_name(None)
    check_table_name(tmp_path / "new" / "report.CSV")
    for name in ("ct.nii.gz", "label.nrrd", "report"):
        with pytest.raises(DataError, match=r"is to be a table; name a \.csv"):
            check_table_name(tmp_path / name)


@pytest.mark.parametrize("cut", [0, 4, 100, 150])
def test_array_cut_short_is_a_data_error(tmp_path, cut):
    path = tmp_path / "a.npy"
    save_array(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.npy: is not a whole \.npy array"):
        load_array(path)


@pytest.mark.parametrize("kind", [np.uint8, np.float16])
def test_no_flipped_bit_of_an_array_goes_unseen(tmp_path, kind):
    path = tmp_path / "a.npy"
    save_array(path, np.arange(500).astype(kind))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    np.testing.assert_array_equal(np.load(path), np.arange(500).astype(kind))  # as any other
    for place in rng.integers(0, len(content) - DIGEST_BYTES, 100):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npy: is not a whole \.npy array"):
            load_array(path)
    path.write_bytes(content)
    load_array(path)


def test_an_array_of_another_program_has_no_digest_and_is_taken(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    assert load_array(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy"):
        load_array(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        (DataError("a.nii: is empty"), "a.nii: is empty"),
        (OSError(errno.EIO, "broken"), f"[Errno {errno.EIO}] broken"),
        (PermissionError("closed"), "closed"),
        (MemoryError(), "MemoryError"),
        (MemoryError("too much"), "too much"),
    ],
)
def test_what_goes_wrong_with_one_is_noted_and_the_others_go_on(error, noted):
    failures, done = {"case_00009": "earlier"}, []
    for name in ("case_00000", "case_00001", "case_00002"):
        with noting(failures, name):
            if name == "case_00001":
                raise error
            done.append(name)
    assert done == ["case_00000", "case_00002"]
    assert failures == {"case_00009": "earlier", "case_00001": noted}


@pytest.mark.parametrize("error", [KeyError("typo"), ValueError("bug"), KeyboardInterrupt()])
def test_mistakes_in_the_code_and_interrupts_are_not_noted(error):
    failures = {}
    with pytest.raises(type(error)), noting(failures, "case_00000"):
        raise error
    assert failures == {}


def test_no_folder_is_made_that_is_called_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="begins with ~"):
        check_writable("~/label.nii.gz")
    with pytest.raises(DataError, match="begins with ~"), atomic_path("~/label.nii.gz"):
        pass
    assert not list(tmp_path.iterdir())
