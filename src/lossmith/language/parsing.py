"""What threads must do one at a time: making nodes of expressions, and Python's own parser."""

from __future__ import annotations

import ast
import os
import threading


def lock_held_over_forks() -> threading.RLock:
    """Return a re-entrant lock that a fork waits for, so that no child is born with it held by a thread it lacks."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


_parser = lock_held_over_forks()


def parsed(text: str) -> ast.Module:
    """Return Python's syntax tree of a text.

    CPython counts the depth of a tree under construction per interpreter, not per thread, and raises SystemError
    where a second thread begins one meanwhile.
    """
    with _parser:
        return ast.parse(text)
