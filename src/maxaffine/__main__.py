"""The command line as a module: `python -m maxaffine`."""

from maxaffine_command import main

if __name__ == "__main__":
    main()
