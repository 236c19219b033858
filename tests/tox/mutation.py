"""Stop unless tests killed as many of mutmut's mutants as they have to; those that change nothing count as alive.

python tests/tox/mutation.py mutants/mutmut-cicd-stats.json
"""

import json
import sys
from pathlib import Path

SHARE = 0.95


def fault(found):
    """Return what is wrong with what mutmut found, in words, or nothing where enough mutants were killed."""
    seen, total = found["killed"] + found["timeout"], found["total"]
    if total and seen >= SHARE * total:
        return ""
    return f"tests see {seen} of {total} mutants: expected {SHARE:.0%}"


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(*(f"{name} {count}" for name, count in found.items() if count), sep=", ")
    sys.exit(fault(found) or None)
