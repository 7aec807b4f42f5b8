"""`python -m ddpm` is the same as `ddpm`."""

import sys

from ddpm.cli import main

if __name__ == "__main__":
    sys.exit(main())
