"""`python -m skelfit`: the command line."""

from skelfit.cli import main

main()
