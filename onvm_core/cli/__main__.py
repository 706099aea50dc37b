"""``python -m onvm_core.cli``: the command line without its script."""

from __future__ import annotations

from onvm_core.cli.entry import main

if __name__ == "__main__":
    main()
