"""What is stored or asked for by name: networks, diffusions, samplers and presets.

    @ddpm.register("network", "dit")
    @dataclass(frozen=True)
    class Dit: ...

A checkpoint stores such a name and plain values, never code. To load it, the module that registers
the name must have been imported; nothing is imported because a file says so.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from ddpm.errors import DdpmError, check

Kind = Literal["network", "diffusion", "sampler", "preset"]
T = TypeVar("T")

_registered: dict[str, dict[str, Any]] = {
    kind: {} for kind in ("network", "diffusion", "sampler", "preset")
}


def register(kind: Kind, name: str) -> Callable[[T], T]:
    """A decorator that gives a class or function a name under which it is stored and found.

    Args:
        kind: network or diffusion (a frozen dataclass of settings with a method `build`), sampler
            (a function of the signature of `ddpm.Sampler`, or a class whose instances are such), or
            preset (a function without arguments that returns a `ddpm.Config`).
        name: unique within the kind.

    Raises:
        DdpmError: the kind is unknown, or something else has the name already.
    """
    check(kind in _registered, f"cannot register a '{kind}'; choose from {', '.join(_registered)}")

    def keep(thing: T) -> T:
        known = _registered[kind].setdefault(name, thing)
        check(
            qualified_name(known) == qualified_name(thing),
            f"the {kind} '{name}' is registered already, by {qualified_name(known)}; choose "
            "another name",
        )
        _registered[kind][name] = thing  # a module that is loaded anew brings its new class
        return thing

    return keep


def lookup(kind: Kind, name: str, module: str | None = None) -> Any:
    """What is registered as `name`.

    Args:
        module: where it was registered when it was stored, for the message.

    Raises:
        DdpmError: nothing is; says which names are known, or which module to import.
    """
    known = _registered[kind]
    if name in known:
        return known[name]
    if module is not None:
        raise DdpmError(
            f"the {kind} '{name}' is not known here; import the module that registers it first "
            f"({module}; on the command line: ddpm --import {module} ...)"
        )
    raise DdpmError(f"unknown {kind} '{name}'; choose from {', '.join(known)}")


def names(kind: Kind) -> tuple[str, ...]:
    """All registered names, in the order in which they were registered."""
    return tuple(_registered[kind])


def name_of(kind: Kind, thing: type) -> str:
    """The name under which exactly this class is registered; a subclass of it is another one.

    Raises:
        DdpmError: it is not, so it could not be found again.
    """
    for name, known in _registered[kind].items():
        if known is thing:
            return name
    raise DdpmError(
        f"{qualified_name(thing)} cannot be stored, since it has no name; put "
        f'@ddpm.register("{kind}", "a-name") above the class'
    )


def import_object(path: str) -> Any:
    """The object that a dotted path names, such as `my_package.my_preset`.

    Modules are also looked for in the current folder, after all others.

    Raises:
        DdpmError: there is no such module, it fails while it is imported, or lacks the name.
    """
    module, _, name = path.rpartition(".")
    found = import_module(module)
    if not hasattr(found, name):
        raise DdpmError(f"the module {module} has no '{name}'")
    return getattr(found, name)


def import_module(name: str) -> Any:
    """The module called `name`; see `import_object`."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except DdpmError:
        raise
    except Exception as error:  # it is somebody's own code, which may raise anything
        raise DdpmError(
            f"cannot import {name} ({type(error).__name__}: {error}); is it installed, or in this "
            "folder?"
        ) from error


def module_of(thing: Any) -> str:
    """The module to import for a class or function; of one that a script defines, the script's."""
    if thing.__module__ != "__main__":
        return str(thing.__module__)
    script = getattr(sys.modules["__main__"], "__file__", None)
    return Path(script).stem if script else "__main__"


def qualified_name(thing: Any) -> str:
    """Module and name of a class or function, or of the class of anything else."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{module_of(named)}.{named.__qualname__}"
