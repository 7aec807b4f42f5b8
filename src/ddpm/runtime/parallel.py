"""Several processes that work as one: shares, sums, agreement, and errors printed once.

The only module that knows of ranks. `torchrun` and `accelerate launch` start a command once for
every device and say so in the environment (WORLD_SIZE, RANK, LOCAL_RANK); `process_group` joins
those processes. Outside of it there is one process, every function here is trivial, and
torch.distributed is never initialised.

Every process must reach the same calls of this module in the same order.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ddpm.errors import DdpmError

T = TypeVar("T")

_joined = False  # whether the group of processes is ours; another program's is left alone
_store: dist.Store | None = None  # what the processes of the group share, also after an error


def launched() -> int:
    """How many processes were started to work as one."""
    return int(os.environ.get("WORLD_SIZE", 1))


def size() -> int:
    """How many processes work as one now."""
    return dist.get_world_size() if _joined else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if _joined else 0


def is_main() -> bool:
    """Whether this is the process that prints and writes files."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Work as one with the other processes that were launched; all leave together.

    Only the main process has a standard output and gives notices inside. On CUDA the devices talk
    through NCCL and the processes, about small things, through gloo, which does not wait for the
    device.
    """
    global _joined, _store
    if launched() == 1 or _joined:
        yield
        return
    from accelerate import PartialState  # only here: importing it takes a second

    cuda = torch.cuda.is_available()
    state = PartialState(cpu=not cuda, backend="cuda:nccl,cpu:gloo" if cuda else "gloo")
    _joined, _store = True, dist.distributed_c10d._get_default_store()
    try:
        with contextlib.ExitStack() as stack:
            if not is_main():
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
                notices = logging.getLogger("ddpm")
                notices.disabled = True
                stack.callback(setattr, notices, "disabled", False)
            yield
        # All leave at once: a launcher ends the others as soon as one has an exit code.
        dist.barrier()
        state.destroy_process_group()
    except BaseException:
        if not cuda:  # NCCL might wait for processes that never come here
            state.destroy_process_group()
        raise
    finally:
        _joined = False


def leave(code: int) -> NoReturn:
    """End this process of several, whose work is done, at once.

    One that ends by itself is aborted now and then by PyTorch's threads ("terminate called without
    an active exception"), and the launcher then calls all of the work failed.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def local_range(n: int) -> range:
    """The part of n things that this process works on; the first ones may have one more."""
    each, more = divmod(n, size())
    first = rank() * each + min(rank(), more)
    return range(first, first + each + (rank() < more))


def is_mine(i: int) -> bool:
    """Whether this process works on the i-th of many things that are dealt out one by one."""
    return i % size() == rank()


def all_reduce_sum(*tensors: Tensor) -> None:
    """Fill in, in place, what the other processes have computed: each has zeros elsewhere."""
    if size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def mean(values: Tensor) -> Tensor:
    """The mean of every process's values."""
    total = values.clone()
    all_reduce_sum(total)
    return total / size()


def all_reduce_max(value: int) -> int:
    """The largest of every process's number: how they agree to stop at the same step."""
    if size() == 1:
        return value
    agreed = torch.tensor(int(value))
    dist.all_reduce(agreed, dist.ReduceOp.MAX)
    return int(agreed)


@contextmanager
def agreement() -> Iterator[None]:
    """An error that one process raises inside is raised in all of them when they leave.

    Without it the others would wait for that process for ever.
    """
    if size() == 1:
        yield
        return
    raised: Exception | None = None
    try:
        yield
    except (DdpmError, OSError) as error:
        raised = error
    if all_reduce_max(raised is not None):
        everywhere: list[Exception | None] = [None] * size()
        dist.all_gather_object(everywhere, raised)
        raise next(error for error in everywhere if error is not None)


def on_main(action: Callable[[], T]) -> T | None:
    """Do `action` in the main process while the others wait; its result, and None elsewhere."""
    with agreement():
        return action() if is_main() else None


def lockstep(items: Iterator[T]) -> Iterator[T]:
    """The same number of items in every process; an error of one is raised in all."""
    end = object()
    while True:
        with agreement():
            item = next(items, end)
        if item is end:
            return
        yield item  # type: ignore[misc]


def print_once(sentence: str) -> None:
    """Print to standard error, once, what several processes may have to say."""
    if _store is not None:
        try:
            first = _store.add(f"ddpm said: {sentence}", 1) == 1
        except RuntimeError:  # the process that kept the store has printed its error and ended
            first = False
    else:
        first = int(os.environ.get("RANK", 0)) == 0
    if first:
        print(sentence, file=sys.stderr, flush=True)
