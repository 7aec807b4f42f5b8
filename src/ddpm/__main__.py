"""`python -m ddpm` is the same as `ddpm`."""

import os
import sys

from ddpm.cli import main

if __name__ == "__main__":
    code = main()
    if "WORLD_SIZE" in os.environ:
        from ddpm.runtime.parallel import leave  # only here: importing PyTorch takes a second

        leave(code)
    sys.exit(code)
