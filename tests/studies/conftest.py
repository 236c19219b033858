"""Studies stand in the checkout alone: it goes behind everything else, so that the library is what is installed."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
