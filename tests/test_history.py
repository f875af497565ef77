import pytest

from tunet_lib.files import DataError
from tunet_lib.history import read_history, write_history


def test_history_comes_back(tmp_path):
    log = {
        "epoch": 1,
        "loss": -0.1,
        "val_loss": -1 / 3,
        "learning_rate": 2e-05,
        "attempts": 1,
        "time_s": 1.5,
    }
    write_history(tmp_path / "history.csv", [log, {**log, "epoch": 2}])
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,val_loss,learning_rate,attempts,time_s"
    assert len(lines) == 3
    assert read_history(tmp_path / "history.csv") == [log, {**log, "epoch": 2}]


@pytest.mark.parametrize("text", [None, "epoch,loss\n1\n", "epoch,loss\n1,x\n", "a,b\n1,2\n"])
def test_history_that_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "history.csv").write_text(text)
    with pytest.raises(DataError, match=r"history\.csv"):
        read_history(tmp_path / "history.csv")
