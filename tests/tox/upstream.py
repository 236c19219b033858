"""Run the laws on SimVQ of the release that an environment such as `upstream-1.20.10` is named after.

They break where `vq_reference/testing/run/expectations/vector-quantize-pytorch.toml` says so, and nowhere else.
"""

import subprocess
import sys


def main(environment):
    """End as `vq-check run` does: 1 for a law that breaks unexpectedly, and for one that holds unexpectedly."""
    release = f"vector-quantize-pytorch=={environment.removeprefix('upstream-')}"
    command = ["run", "lucidrains.SimVQ", "--with", release, "--expectations", "vector-quantize-pytorch"]
    # the command of the environment: with -m, the checkout would be imported in place of the wheel
    sys.exit(subprocess.run(["vq-check", *command]).returncode)


if __name__ == "__main__":
    main(sys.argv[1])
