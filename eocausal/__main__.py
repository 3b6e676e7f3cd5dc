"""``python -m eocausal``."""

from eocausal.cli import main

if __name__ == "__main__":
    main()
