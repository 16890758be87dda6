"""The folder of generated kernels: readable modules, with the machine code that Numba made of them beside.

A file is named after its loss and a hash of all that its machine code depends on: its text, the functions it is built
on, the versions of Numba and LLVM, the processor. So a file is never changed, and what is stale is never found.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ENVIRONMENT = "LOSSMITH_CACHE"


def folder() -> Path:
    """Return the cache folder: $LOSSMITH_CACHE, else the user's, else a temporary one if neither can be written."""
    return _folder(os.environ.get(ENVIRONMENT))


@functools.cache
def _folder(named: str | None) -> Path:
    wanted = Path(named) if named else _user_cache() / "lossmith"
    try:
        wanted.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:
        # A private folder: code is loaded from it, so nobody else may be able to write there.
        temporary = Path(tempfile.mkdtemp(prefix="lossmith-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary


def _user_cache() -> Path:
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


@functools.cache
def _surroundings() -> bytes:
    """Return what else decides about the machine code of a kernel."""
    import llvmlite
    import llvmlite.binding as llvm
    import numba

    features = llvm.get_host_cpu_features().flatten()
    parts = [
        numba.__version__,
        llvmlite.__version__,
        platform.machine(),
        llvm.get_host_cpu_name(),
        features,
        sys.version,
    ]
    sources = sorted(Path(__file__).parent.glob("vecmath*.py"))
    return "\n".join(parts).encode() + b"".join(path.read_bytes() for path in sources)


def load(name: str, text: str) -> ModuleType:
    """Return the module with this text, from a file that is written if it is not there."""
    digest = hashlib.blake2b(text.encode() + _surroundings(), digest_size=8).hexdigest()
    stem = f"{re.sub(r'[^0-9A-Za-z_]', '_', name)[:60]}_{digest}"
    module_name = f"_lossmith_kernel_{stem}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    path = folder() / f"{stem}.py"
    _write(path, text)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _write(path: Path, text: str) -> None:
    """Write the file in one step, so that another process sees all of it or nothing; leave it alone if it is right."""
    try:
        if path.read_bytes() == text.encode():
            return
    except OSError:
        pass
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode())
    os.replace(temporary, path)
