"""Work for a page: in turn, told how far it is, stopped when nobody wants it, and bounded."""

import threading
import time

import pytest

from ddpm.errors import DdpmError
from ddpm.ui import work as module
from ddpm.ui.sessions import GONE, MOST_BYTES, Inbox, Sessions
from ddpm.ui.work import Cancelled, Desk, Work


def finish(steps):
    """What a followed piece of work returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def busy(until):
    """Work that goes on until an event, or until it is not wanted."""

    def do(work):
        for done in range(10_000):
            work(done, 10_000, "being busy")
            if until.wait(0.01):
                return done
        raise AssertionError("nobody ended it")

    return do


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    found = Desk(most=3)
    yield found
    found.close()


def test_work_is_followed_to_its_result(desk):
    assert desk.do(lambda work: (work(1, 1, "all"), 42)[1]) == 42
    assert desk.is_free


def test_pieces_are_done_one_at_a_time_and_in_turn(desk):
    inside, most, order = [], [], []

    def do(name):
        def work(_):
            inside.append(name)
            most.append(len(inside))
            time.sleep(0.02)
            order.append(name)
            inside.remove(name)

        return work

    steps = [desk.follow(Work(), do(name)) for name in "abc"]
    for one in steps:
        next(one)  # in this order
    for one in steps:
        finish(one)
    assert (order, max(most)) == (["a", "b", "c"], 1)


def test_more_than_so_many_are_refused_in_a_sentence(desk):
    until = threading.Event()
    steps = [desk.follow(Work(), busy(until)) for _ in range(3)]
    for one in steps:
        next(one)
    with pytest.raises(DdpmError, match="3 others are waiting"):
        next(desk.follow(Work(), busy(until)))
    until.set()
    for one in steps:
        finish(one)
    assert desk.do(lambda _: "free again") == "free again"


def test_cancelled_work_ends_at_its_next_step_and_others_go_on(desk):
    never, first, second = threading.Event(), Work(), Work()
    steps = desk.follow(first, busy(never))
    next(steps)
    waiting = desk.follow(second, lambda _: "next")
    next(waiting)
    first.cancel()
    with pytest.raises(Cancelled):
        finish(steps)
    assert finish(waiting) == "next"


def test_work_that_waits_can_be_cancelled_before_it_begins(desk):
    until, begun = threading.Event(), []
    steps = desk.follow(Work(), busy(until))
    next(steps)
    second = Work()
    waiting = desk.follow(second, lambda _: begun.append(1))
    next(waiting)
    second.cancel()
    until.set()
    finish(steps)
    with pytest.raises(Cancelled):
        finish(waiting)
    assert begun == []


def test_work_that_nobody_looks_at_ends_by_itself(desk):
    abandoned = desk.follow(Work(patience=0.1), busy(threading.Event()))
    next(abandoned)  # and never again: the tab was closed, and nothing told us
    begun = time.monotonic()
    assert desk.do(lambda _: "free") == "free"
    assert 0.05 < time.monotonic() - begun < 5


def test_a_generator_that_is_thrown_away_ends_its_work(desk):
    steps = desk.follow(Work(), busy(threading.Event()))
    next(steps)
    steps.close()
    assert desk.do(lambda _: "free") == "free"


def test_errors_of_the_work_reach_who_follows_it(desk):
    def wrong(_):
        raise DdpmError("this is wrong")

    with pytest.raises(DdpmError, match="this is wrong"):
        desk.do(wrong)


def test_each_page_has_its_own_results_and_its_new_work_ends_the_old():
    sessions = Sessions()
    sessions.get("a").results["draw"] = "mine"
    assert sessions.get("a").result("draw", str) == "mine"
    with pytest.raises(DdpmError, match=GONE):
        sessions.get("b").result("draw", str)
    first = sessions.get("a").begin()
    second = sessions.get("a").begin()
    assert (first.wanted, second.wanted) == (False, True)
    sessions.drop("a")
    assert not second.wanted
    with pytest.raises(DdpmError):
        sessions.get("a").result("draw", str)


def test_the_least_recently_used_page_is_put_away_when_there_are_too_many():
    sessions = Sessions(most=3)
    first = sessions.get("0")
    work, token = first.begin(), first.token
    for key in ("1", "2"):
        sessions.get(key)
    assert sessions.get("0") is first
    sessions.get("3")  # "1" goes
    assert sessions.by_token(token) is first
    assert work.wanted
    for key in ("4", "5", "6"):
        sessions.get(key)
    assert len(sessions) == 3
    assert sessions.by_token(token) is None
    assert not work.wanted


def test_files_are_kept_byte_for_byte_few_and_small():
    inbox = Inbox(most=2)
    tokens = [inbox.put(bytes([i]) * 10) for i in range(3)]
    assert inbox.get(tokens[2]) == b"\2" * 10
    assert inbox.get(tokens[1]) == b"\1" * 10
    with pytest.raises(DdpmError, match="choose it again"):
        inbox.get(tokens[0])
    with pytest.raises(DdpmError, match="16,777,217 bytes"):
        inbox.put(bytes(MOST_BYTES + 1))
