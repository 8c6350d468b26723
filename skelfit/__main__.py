"""`python -m skelfit`, which torchrun can start."""

from skelfit.cli import main

if __name__ == "__main__":
    main(prog_name="skelfit")
