"""`python -m lossmith` is the command `lossmith`."""

from __future__ import annotations

from lossmith.cli import main

if __name__ == "__main__":
    main()
