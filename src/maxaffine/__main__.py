"""The command line as a module: `python -m maxaffine`."""

from maxaffine.cli import main

if __name__ == "__main__":
    main()
