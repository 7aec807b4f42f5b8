"""Functions of loops over integers, compiled when they are first called.

`compiled` is numba's `njit` with three differences. Numba, which takes long to import, is imported
by the first call. The machine code is kept in this project's cache folder (`ddpm.runtime.paths`)
and looked up by everything that it depends on, so that no other source, processor or version can
be mistaken for it; a file that is damaged is not used. And where nothing can be kept, because
there is no such folder or no space, the function is compiled for this process alone: slower to
start, the same in its results.

Without fastmath and in integers a function gives the same on every machine. With
`NUMBA_DISABLE_JIT=1` Python itself runs it.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import pickle
import sys
import threading
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from ddpm.runtime.atomic import atomically
from ddpm.runtime.paths import cache_home

P = ParamSpec("P")
R = TypeVar("R")

DIGEST = 16  # bytes at the beginning of a kept file
_lock = threading.RLock()
log = logging.getLogger("ddpm")


def compiled(function: Callable[P, R]) -> Compiled[P, R]:
    """`function` as machine code that runs without Python's lock.

    It may call other compiled functions and use numbers of its module; both are constants to it.
    """
    return Compiled(inspect.unwrap(function))


class Compiled(Generic[P, R]):
    """A function that is compiled when it is first called.

    Args:
        function: in the Python that numba understands.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._dispatcher: Any = None
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See the function."""
        return (self._dispatcher or self.dispatcher)(*args, **kwargs)

    @property
    def dispatcher(self) -> Any:
        """Numba's object, which compiles for each combination of types that it is called with."""
        with _lock:
            if self._dispatcher is None:
                import numba

                made = numba.njit(nogil=True)(self.function)
                if hasattr(made, "_cache"):  # not with NUMBA_DISABLE_JIT
                    made._cache = Kept(self.function)
                self._dispatcher = made
            return self._dispatcher

    @property
    def _numba_type_(self) -> Any:
        """What numba takes it for where another compiled function calls it."""
        return self.dispatcher._numba_type_


class Kept:
    """What numba asks for machine code before it compiles, and gives it to afterwards.

    Trouble of any kind is no more than a reason to compile.

    Args:
        function: whose code it is.
    """

    cache_path = None

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The code for these types, or None."""
        try:
            from numba.core.compiler import CompileResult

            context.refresh()
            data = self._file(signature, context.codegen()).read_bytes()
            digest, body = data[:DIGEST], data[DIGEST:]
            if digest == _digest(body):
                return CompileResult._rebuild(context, *pickle.loads(body))
            log.debug("%s: the compiled code that was kept is damaged", self.function.__name__)
        except FileNotFoundError:
            pass
        except Exception as error:
            log.debug("%s: no compiled code is read (%r)", self.function.__name__, error)
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled for these types."""
        try:
            from numba.core.serialize import dumps

            if result.library.has_dynamic_globals:
                return  # addresses of this process are in it
            body = dumps(result._reduce())
            file = self._file(signature, result.library.codegen)
            atomically(file, lambda partial: partial.write_bytes(_digest(body) + body))
        except Exception as error:
            log.debug("%s: compiled code is not kept (%r)", self.function.__name__, error)

    def _file(self, signature: Any, codegen: Any) -> Path:
        """Where it is kept: a name made of all that decides the code."""
        import llvmlite
        import numba

        settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
        about = (
            *_meaning(self.function),
            str(signature),
            codegen.magic_tuple(),
            (sys.version, numba.__version__, llvmlite.__version__),
            settings,
        )
        name = f"{self.function.__name__.strip('_')}-{_digest(repr(about).encode()).hex()}.code"
        return cache_home() / "ddpm" / "compiled" / name

    def enable(self) -> None:
        """It always is."""

    disable = flush = enable


def _meaning(function: Callable[..., Any]) -> list[Any]:
    """The text of a function's file, and what the names in it stand for elsewhere."""
    found = [function.__qualname__, Path(inspect.getfile(function)).read_bytes()]
    for name in sorted(set(function.__code__.co_names)):
        value = function.__globals__.get(name)
        if isinstance(value, Compiled):
            found.append((name, _meaning(value.function)))
        elif not inspect.ismodule(value):
            found.append((name, repr(value)))
    return found


def _digest(data: bytes) -> bytes:
    """By which a change is noticed."""
    return hashlib.blake2b(data, digest_size=DIGEST).digest()
