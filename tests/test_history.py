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


HEAD = "epoch,loss,val_loss,learning_rate,attempts,time_s\n"


@pytest.mark.parametrize(
    "line",
    [
        "1,nan,0,0,1,1",
        "1,0,inf,0,1,1",
        "2,0,0,0,1,1",
        "1e400,0,0,0,1,1",
        "1,0,0,0,0,1",
        "1,0,0,0,1.5,1",
        "1,0,0,0,1,-1",
    ],
)
def test_numbers_that_no_epoch_has(tmp_path, line):
    (tmp_path / "history.csv").write_text(f"{HEAD}{line}\n")
    with pytest.raises(DataError, match=r"history\.csv"):
        read_history(tmp_path / "history.csv")


@pytest.mark.parametrize("text", [None, "epoch,loss\n1\n", "epoch,loss\n1,x\n", "a,b\n1,2\n"])
def test_history_that_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "history.csv").write_text(text)
    with pytest.raises(DataError, match=r"history\.csv"):
        read_history(tmp_path / "history.csv")


@pytest.mark.parametrize("text", ["", "<html>404</html>\n", HEAD.replace(",", ";"), "epoch,loss\n"])
def test_what_has_no_columns_of_a_history_is_no_empty_one(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(DataError, match="it has no column"):
        read_history(tmp_path / "history.csv")
