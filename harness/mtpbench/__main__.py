"""`python -m mtpbench`: the command line without its script."""

from mtpbench.cli import main

if __name__ == "__main__":
    main()
