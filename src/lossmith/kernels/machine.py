"""Machine code on disk, found again without Numba's compiler.

Numba has a cache of its own. But to find a function in it, Numba reads and compiles the module, and registers every
function that it has an implementation of: a quarter of a second. The object code itself is linked in five milliseconds.
So it is kept in a file of ours, with the few names that are needed to link it. If Numba has changed inside so that any
of this fails, nothing is lost but time: the kernel is compiled, and Numba's own cache takes over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lossmith.kernels import cache

_kept: list[Any] = []
"""What machine code points to: environments, in which Numba looks for the constants of error messages."""


def find(path: Path) -> Callable[..., None] | None:
    """Return the kernel whose object code is in the file, None if there is no such file or it cannot be linked."""
    state = cache.read_object(path)
    if state is None:
        return None
    try:
        return _linked(state)
    except Exception:  # the inside of Numba may change with any version
        return None


def compiled(kernel: Any, signature: tuple[Any, ...], path: Path) -> Callable[..., None]:
    """Compile a function for arguments of these types, and write its object code to the file."""
    if not _is_known_inside():
        kernel.enable_caching()
    kernel.compile(signature)
    found = kernel.overloads[signature]
    with contextlib.suppress(Exception):
        environments = [
            (e.env_name, str(e.globals["__name__"]), list(e.consts))
            for e in (found.environment, *found._find_referenced_environments())
        ]
        state = found.library.serialize_using_object_code(), found.fndesc.llvm_cpython_wrapper_name, environments
        cache.write_object(path, state)
    return found.entry_point  # the dispatcher in front of it would look at the types of all arguments again


def _is_known_inside() -> bool:
    """Whether Numba has the parts that `_linked` puts together."""
    try:
        from numba import _dynfunc  # type: ignore[attr-defined]
        from numba.core.codegen import JITCPUCodegen
        from numba.core.runtime import _nrt_python  # type: ignore[attr-defined]
    except ImportError:
        return False
    parts = (_dynfunc, "make_function"), (_nrt_python, "c_helpers"), (JITCPUCodegen, "unserialize_library")
    return all(hasattr(a, b) for a, b in parts)


def _linked(state: tuple[Any, str, list[tuple[str, str, list[Any]]]]) -> Callable[..., None]:
    from llvmlite.binding import add_symbol
    from numba import _dynfunc  # type: ignore[attr-defined]
    from numba.core.environment import Environment
    from numba.core.registry import cpu_target
    from numba.core.runtime import _nrt_python  # type: ignore[attr-defined]

    code, name, environments = state
    for helper, address in _nrt_python.c_helpers.items():  # memory management, which the compiler would set up
        add_symbol(helper if helper.startswith("_") else f"NRT_{helper}", address)
    context: Any = cpu_target.target_context
    library = context.codegen().unserialize_library(code)
    address = library.get_pointer_to_function(name)
    module = ModuleType("lossmith_kernel")
    made = []
    for env_name, module_name, constants in environments:
        environment = Environment({"__name__": module_name})
        environment.consts[:] = constants
        environment.env_name = env_name
        library.codegen.set_env(env_name, environment)
        made.append(environment)
    _kept.append(made)
    return _dynfunc.make_function(module, "kernel", "A compiled kernel.", address, made[0], (library,))
