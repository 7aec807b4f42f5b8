"""Compiled functions: right with and without a cache, whatever happens to its files."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
from numba.core.codegen import JITCPUCodegen

from ddpm.runtime import compiled as module
from ddpm.runtime.compiled import Compiled, compiled

MODULE = """
import numpy as np
from factor import FACTOR
from offset import offset
from ddpm.runtime.compiled import compiled

@compiled
def scaled(x):
    return FACTOR * x + offset(x)

@compiled
def total(n):
    found = 0
    for i in range(n):
        found += scaled(i)
    return found

if __name__ == "__main__":
    import sums, sys
    print(sums.total(5), sum(getattr(sums.total.dispatcher, "stats").cache_hits.values()))
"""
OFFSET = """
from ddpm.runtime.compiled import compiled

@compiled
def offset(x):
    return {offset}
"""


@compiled
def triangle(n: int) -> int:
    """0 + 1 + ... + (n - 1)."""
    found = 0
    for i in range(n):
        found += i
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where code is kept, empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ddpm" / "compiled"


def hits(function):
    """How often code was found."""
    return sum(function.dispatcher.stats.cache_hits.values())


def again():
    """The function as another process has it: found or not, and what it gives."""
    function = Compiled(triangle.function)
    result = function(10)
    return result, hits(function)


def test_code_is_kept_and_found_again(folder):
    assert again() == (45, 0)
    assert len(list(folder.iterdir())) == 1
    assert again() == (45, 1)
    assert triangle(7) == 21
    assert triangle.__doc__ == "0 + 1 + ... + (n - 1)."


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


DAMAGES = {
    "empty": lambda data: b"",
    "one byte": lambda data: b"\x80",
    "cut": cut,
    "a bit flipped": flipped,
    "no pickle": lambda data: module._digest(b"nonsense") + b"nonsense",
    "another pickle": lambda data: module._digest(b"N.") + b"N.",
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_not_used_and_replaced(folder, damage):
    again()
    (file,) = folder.iterdir()
    data = file.read_bytes()
    file.write_bytes(DAMAGES[damage](data))
    assert again() == (45, 0)
    assert again() == (45, 1)


def test_a_folder_in_the_files_place_costs_the_cache_only(folder):
    again()
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    assert again() == (45, 0)
    assert list(folder.iterdir()) == [file]


def test_a_numba_that_keeps_code_in_another_way_costs_the_cache_only(folder, monkeypatch):
    monkeypatch.delattr(numba.core.compiler.CompileResult, "_reduce")
    assert again() == (45, 0)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parents[1]))
    again()
    monkeypatch.delattr(numba.core.compiler.CompileResult, "_rebuild")
    assert again() == (45, 0)


def test_another_processor_with_the_same_home_finds_nothing(folder, monkeypatch):
    again()
    monkeypatch.setattr(JITCPUCodegen, "magic_tuple", lambda codegen: ("another", "", ""))
    assert again() == (45, 0)
    assert again() == (45, 1)
    assert len(list(folder.iterdir())) == 2


def test_several_threads_may_be_the_first():
    function = Compiled(triangle.function)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(function, [10] * 8)) == [45] * 8


def test_an_error_in_the_function_is_its_own(folder):
    @compiled
    def divided(n: int) -> int:
        return 1 // n

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            divided(0)
        assert divided(1) == 1


# -- other processes -----------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path):
    """A script beside the module that it uses; its options write them anew."""

    def write(factor=3, offset="1"):
        (tmp_path / "sums.py").write_text(MODULE)
        (tmp_path / "factor.py").write_text(f"FACTOR = {factor}")
        (tmp_path / "offset.py").write_text(OFFSET.format(offset=offset))
        for old in (tmp_path / "__pycache__").glob("*.pyc"):
            old.unlink()
        return [sys.executable, "-W", "error", str(tmp_path / "sums.py")]

    return write


def environment(**changes):
    """This process's, changed; None takes a variable away."""
    new = {**os.environ, **changes}
    return {name: value for name, value in new.items() if value is not None}


def printed(command, **changes):
    """What a program says."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**changes))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.slow
def test_what_a_function_uses_decides_what_is_found(program, tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert printed(program(), **cache) == ["35", "0"]
    assert printed(program(), **cache) == ["35", "1"]
    assert printed(program(factor=4), **cache) == ["45", "0"]
    assert printed(program(offset="2"), **cache) == ["40", "0"]
    assert printed(program(), **cache) == ["35", "1"]
    assert printed(program(), NUMBA_CPU_NAME="generic", **cache) == ["35", "0"]
    assert printed(program(), NUMBA_OPT="0", **cache) == ["35", "0"]


NOWHERE = {
    "a folder that cannot be": {"XDG_CACHE_HOME": "/proc/nowhere"},
    "a folder in a file": {"XDG_CACHE_HOME": "/dev/null/cache"},
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home that is a file": {"HOME": "/dev/null", "XDG_CACHE_HOME": None},
    "a home below a file": {"HOME": "/dev/null/home", "XDG_CACHE_HOME": None},
    "no room anywhere": {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": None, "TMPDIR": "/proc"},
}


@pytest.mark.slow
@pytest.mark.parametrize("place", NOWHERE)
def test_without_a_place_for_a_cache_it_is_compiled_all_the_same(program, place):
    assert printed(program(), **NOWHERE[place])[0] == "35"


@pytest.mark.slow
def test_a_full_disk_costs_the_cache_only(program, tmp_path):
    command = program()
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200));"
        "sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1]);"
        "runpy.run_path(sys.argv[1] + '/sums.py', run_name='__main__')"
    )
    cache = tmp_path / "cache"
    full = [sys.executable, "-c", limited, str(tmp_path)]
    assert printed(full, XDG_CACHE_HOME=str(cache)) == ["35", "0"]
    assert list((cache / "ddpm" / "compiled").iterdir()) == []
    assert printed(command, XDG_CACHE_HOME=str(cache)) == ["35", "0"]


@pytest.mark.slow
def test_several_processes_may_be_the_first(program, tmp_path):
    cache = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    command = program()
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=cache) for _ in range(4)
    ]
    assert [process.communicate()[0].split()[0] for process in running] == ["35"] * 4
    files = list((tmp_path / "cache" / "ddpm" / "compiled").iterdir())
    assert sorted(file.suffix for file in files) == [".code"] * 3


@pytest.mark.slow
def test_python_itself_can_run_it(program, tmp_path):
    program()
    call = [sys.executable, "-c", "import sums; print(sums.total(5))"]
    assert printed(call, NUMBA_DISABLE_JIT="1", PYTHONPATH=path(tmp_path)) == ["35"]


def path(folder):
    """Where Python looks for modules, and also there."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.mark.slow
def test_numba_is_imported_by_the_first_call_only():
    look = (
        "import sys, ddpm, ddpm.codec.tree_code, ddpm.codec.beam, ddpm.cli;"
        "print('numba' in sys.modules);"
        "tree = ddpm.codec.tree_code.TreeCode().grow(3, 9, 1);"
        "tree.vector(__import__('numpy').array([1, 2]));"
        "print('numba' in sys.modules)"
    )
    assert printed([sys.executable, "-c", look]) == ["False", "False"]
