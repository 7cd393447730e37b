"""`python -m kvbench.emulator`: see `--help`."""

import sys

from kvbench.emulator.api import serve
from kvbench.emulator.settings import parse_arguments

if __name__ == "__main__":
    sys.exit(serve(parse_arguments(sys.argv[1:])))
