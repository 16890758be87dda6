"""The folder of generated kernels: readable modules, with the machine code that Numba made of them beside.

A file is named after its loss and a hash of all that its content depends on: its text, the functions it is built on,
the versions of Numba and LLVM, the processor. So a file is never changed, and what is stale is never found. Programs
(.program) and object code (.kernel) spare the next process to derive and to compile; any of them may be deleted.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.util
import os
import pickle
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

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
    here = Path(__file__).parent
    used = ("lanes", "looking", "streams", "turning")
    sources = [*sorted(here.glob("vecmath*.py")), *(here / f"{name}.py" for name in used)]
    return "\n".join(parts).encode() + b"".join(path.read_bytes() for path in sources)


@functools.cache
def generator() -> bytes:
    """Return what tells one state of this library from another: name, size and time of each file that makes code."""
    here = Path(__file__).parent
    found: list[str] = []
    for directory in (here, here.parent / "calculus", here.parent / "language"):
        with os.scandir(directory) as entries:
            files = [(e.name, e.stat()) for e in entries if e.name.endswith(".py")]
        found += sorted(f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in files)
    compiler = (here.parent / "compiler.py").stat()
    return "\n".join([*found, f"{compiler.st_size} {compiler.st_mtime_ns}"]).encode()


def place(name: str, *parts: bytes, suffix: str) -> Path:
    """Return the file of what these parts and this state of the library, of Numba and the processor determine."""
    return folder() / f"{stem(name, *parts, generator(), _surroundings())}{suffix}"


def stem(name: str, *parts: bytes) -> str:
    """Return a file name without its suffix: a readable name, and a hash of the parts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return f"{re.sub(r'[^0-9A-Za-z_]', '_', name)[:60]}_{digest.hexdigest()[:24]}"


def load(name: str, text: str) -> ModuleType:
    """Return the module with this text, from a file that is written if it is not there."""
    file = stem(name, text.encode(), _surroundings())
    module_name = f"_lossmith_kernel_{file}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    path = folder() / f"{file}.py"
    write(path, text.encode())
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


def write(path: Path, content: bytes) -> None:
    """Write the file in one step, so that another process sees all of it or nothing; leave it alone if it is right."""
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def write_object(path: Path, thing: Any) -> None:
    """Pickle something to a file, if that is possible; a cache that cannot be written is no error."""
    with contextlib.suppress(Exception):
        content = pickle.dumps(thing)
        write(path, hashlib.blake2b(content, digest_size=16).digest() + content)


def read_object(path: Path) -> Any:
    """Return what `write_object` wrote; None if there is nothing, or the file is damaged."""
    try:
        content = path.read_bytes()
        seal, content = content[:16], content[16:]
        return pickle.loads(content) if hashlib.blake2b(content, digest_size=16).digest() == seal else None
    except Exception:  # not there, or written by another version of something
        return None
