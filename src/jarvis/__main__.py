"""``python -m jarvis`` is the command line: see `jarvis.interfaces.cli`."""

from jarvis.interfaces.cli import main

if __name__ == "__main__":
    main()
