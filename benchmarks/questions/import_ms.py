"""What does `import detent` cost a process?"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.measuring import figure, median
from benchmarks.stage import Stage

INTERPRETERS = 15


def answer(stage: Stage) -> float:
    pairs = [(_seconds("pass"), _seconds("import detent")) for _ in range(stage.sized(INTERPRETERS, least=5))]
    return figure((median([loaded for _, loaded in pairs]) - median([empty for empty, _ in pairs])) * 1000)


def _seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began
