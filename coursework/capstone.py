"""The capstone's CTs, and its leaderboard: ``python -m coursework.capstone cts|board``."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import html
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from coursework.task import CourseworkError, read_secret
from tunet_lib.files import DataError, atomic_path, load_json, save_json
from tunet_lib.kits19 import LABEL_NAME
from tunet_lib.pairs import Interval, Row, differences, interval, read_pairs
from tunet_lib.phantom import write_phantoms

TOLD = ("case_id", "synthetic", "size", "voxel_spacing")  # of a case, to students
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Leaderboard</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; }}
main {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
caption {{ text-align: left; padding-bottom: .5rem; }}
th, td {{ padding: .3rem .6rem; border-bottom: 1px solid gray; text-align: right; }}
th:nth-child(2), td:nth-child(2) {{ text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }}
</style></head><body><main><h1>Leaderboard</h1><div tabindex="0" role="region" aria-label="Scores">
<table><caption>{cases} secret cases. Mean, and its 95 % interval when the cases are drawn anew.
{against}</caption>
<thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></div>
<p>Where the interval of a difference holds 0, these cases cannot tell the two apart.</p>
</main></body></html>
"""


def write_cts(folder: Path, secret: bytes, count: int) -> None:
    """Make phantoms of which nobody can tell the seed: CTs for students, and their truth.

    ``students`` gets the CTs and a ``kits.json`` without the seed and the tumors' size; ``truth``
    the label maps. A phantom's own 128 bits are derived from the secret.
    """
    for name in ("students", "truth"):
        if (folder / name).exists():
            raise CourseworkError(f"{folder / name}: is there already; choose another folder")
    seed = int.from_bytes(hmac.new(secret, b"capstone", hashlib.sha256).digest()[:16], "big")
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        for case in write_phantoms(made, count, seed):
            truth = folder / "truth" / case.case_id
            truth.mkdir(parents=True)
            shutil.move(made / case.case_id / LABEL_NAME, truth / LABEL_NAME)
            shutil.move(made / case.case_id, folder / "students" / case.case_id)
        entries = load_json(made / "kits.json")
    kept = [{key: value for key, value in e.items() if key in TOLD} for e in entries]
    save_json(folder / "students" / "kits.json", kept)


def leaderboard(scores: Mapping[str, Sequence[Row]], against: str | None = None) -> str:
    """Make a page of the tables that ``tunet score --out`` wrote, the best mean DSC first.

    Parameters
    ----------
    scores
        Name → its scores.
    against
        Whose scores the others are compared with, case by case.
    """
    rows = []
    for name, table in scores.items():
        regions = ("mean", "whole", "tumor")
        figures = [interval([row[region] for row in table]) for region in regions]
        less: Interval | None = None
        if against is not None and name != against:
            less = interval(differences(table, scores[against], "mean"))
        rows.append((figures, less, name))
    rows.sort(key=lambda row: (-row[0][0].mean, row[2]))
    head = ["", "name", "mean DSC", "whole", "tumor"]
    head += [f"less {against}"] if against is not None else []
    body = []
    for place, (figures, less, name) in enumerate(rows, start=1):
        cells = [str(place), name, *map(str, figures)]
        cells += [str(less or "")] if against is not None else []
        body.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return PAGE.format(
        cases=len(next(iter(scores.values()))),
        against=f"The last column: less {html.escape(against)}, case by case." if against else "",
        head="".join(f'<th scope="col">{html.escape(name)}</th>' for name in head),
        body="\n".join(body),
    )


def main() -> None:
    """Make CTs, or the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    cts = verbs.add_parser("cts", help="make the secret CTs and their truth")
    cts.add_argument("folder", type=Path)
    cts.add_argument("--seed-file", type=Path, required=True)
    cts.add_argument("--count", type=int, default=20)
    board = verbs.add_parser("board", help="make the page of a folder of tables of scores")
    board.add_argument("scores", type=Path)
    board.add_argument("--against", help="a table's name, without .csv")
    board.add_argument("--out", type=Path, default=Path("leaderboard.html"))
    chosen = parser.parse_args()
    try:
        if chosen.verb == "cts":
            write_cts(chosen.folder, read_secret(chosen.seed_file), chosen.count)
            return
        scores = {path.stem: read_pairs(path) for path in sorted(chosen.scores.glob("*.csv"))}
        if not scores:
            raise CourseworkError(f"{chosen.scores}: holds no table of scores")
        if chosen.against and chosen.against not in scores:
            raise CourseworkError(f"{chosen.scores}: holds no {chosen.against}.csv")
        with atomic_path(chosen.out) as temporary:
            temporary.write_text(leaderboard(scores, chosen.against), encoding="utf-8")
    except (CourseworkError, DataError, OSError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
