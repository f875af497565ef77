"""How long a user waits for `import tunet_lib` and for `tunet --help`."""

from __future__ import annotations

import shutil
import subprocess
import sys

from benchmarks.harness import Measured, alone


def measure() -> list[Measured]:
    """Measure this row, Python's own start included."""
    tunet = shutil.which("tunet", path=str(sys.prefix) + "/bin") or "tunet"

    def import_it() -> None:
        subprocess.run([sys.executable, "-c", "import tunet_lib"], check=True)

    def help_me() -> None:
        subprocess.run([tunet, "--help"], check=True, capture_output=True)

    return alone("import tunet_lib", import_it, 0.5) + alone("tunet --help", help_me, 1.0)
