"""Scripts in benchmarks/ import each other as their folder's modules."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
