"""`python -m kvbench` is the `kvbench` command."""

from kvbench.cli.app import main

main()
