"""What the futures of a run's pushes tell, from what the ledger says."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any

import pytest

from hub_callbacks import PushNotSent
from hub_callbacks.outbox.ledger import DONE, LOST, REFUSED, RUNNING, SUPERSEDED, WAITING, Entry, Ledger
from hub_callbacks.training.futures import PushFutures


class Book:
    """A ledger, and the futures that are told by it."""

    def __init__(self, folder: Any) -> None:
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.futures = PushFutures(self.ledger.path)

    def push(self, number: int, size: int = 10) -> Future[Any]:
        future: Future[Any] = Future()
        self.futures.follow(f"{number:06d}", future, size)
        return future

    def say(self, number: int, state: str, by: int | None = None, **more: Any) -> None:
        if state == DONE:
            more = {"commit": f"commit-{number}", "url": "https://huggingface.co/me/model/commit/abc", **more}
        self.ledger.append(Entry(f"{number:06d}", state, by=f"{by:06d}" if by else None, **more))
        self.futures.take_news()
        self.futures.settle()


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)


def test_a_push_that_was_taken_over_gives_the_commit_of_the_one_that_took_it_over(book):
    one, two, three = (book.push(number) for number in (1, 2, 3))
    book.say(1, SUPERSEDED, by=2)
    book.say(2, SUPERSEDED, by=3)
    assert not any(future.done() for future in (one, two, three)) and book.futures.open == 3
    book.say(3, DONE)
    assert {future.result().oid for future in (one, two, three)} == {"commit-3"}
    assert book.futures.open == 0 and book.futures.unsent == ()


def test_what_a_late_word_says_of_a_push_that_was_taken_over_counts_no_more(book):
    one, two = book.push(1), book.push(2)
    book.say(1, SUPERSEDED, by=2)
    book.say(1, WAITING, why="another process sends from this outbox")
    another: Future[Any] = Future()
    book.futures.follow_another("000001", another)
    book.say(2, DONE)
    assert {future.result(0).oid for future in (one, two, another)} == {"commit-2"}
    assert book.futures.summary().why is None and book.futures.open == 0


def test_the_one_that_takes_over_may_have_arrived_already_or_be_nobodys_here(book):
    one, two = book.push(1), book.push(2)
    book.say(9, DONE)
    book.say(1, SUPERSEDED, by=9)
    assert one.result().oid == "commit-9"
    book.say(2, SUPERSEDED, by=11)
    assert not two.done()
    book.say(11, DONE)
    assert two.result().oid == "commit-11"


def test_what_is_lost_is_an_exception_for_all_that_it_had_taken_over(book):
    one, two = book.push(1), book.push(2)
    book.say(1, SUPERSEDED, by=2)
    book.say(2, LOST, why="gone")
    for future in (one, two):
        with pytest.raises(PushNotSent, match="gone"):
            future.result()


def test_bytes_that_are_taken_over_need_not_be_sent(book):
    for number in (1, 2, 3):
        book.push(number)
    assert book.futures.sizes() == (0, 30)
    book.say(1, SUPERSEDED, by=2)
    book.say(2, DONE)
    assert book.futures.sizes() == (10, 20)
    assert list(book.futures.unsent) == ["000003"]


def test_whether_waiting_is_any_use(book):
    futures = book.futures
    assert futures.outlook(60, is_sending=False, is_given_up=False) is True
    book.push(1)
    assert futures.outlook(60, is_sending=False, is_given_up=False) is None
    assert futures.outlook(60, is_sending=False, is_given_up=True) is False
    assert futures.outlook(-1, is_sending=False, is_given_up=False) is False
    assert futures.outlook(-1, is_sending=True, is_given_up=False) is None
    book.say(1, RUNNING)
    assert list(futures.running) == ["000001"]
    book.say(1, REFUSED, why="no rights")
    futures._last_news -= 10
    assert futures.outlook(60, is_sending=False, is_given_up=False) is False
    book.say(1, WAITING, why="503")
    assert futures.outlook(60, is_sending=False, is_given_up=False) is None
    assert futures.summary().waiting == 1 and futures.summary().why == "503"


def test_what_a_users_callback_raises_leaves_no_future_behind(book):
    def interrupt(future: Future[Any]) -> None:
        raise KeyboardInterrupt

    one, two = book.push(1), book.push(2)
    one.add_done_callback(interrupt)
    book.ledger.append(Entry("000001", SUPERSEDED, by="000002"))
    book.futures.take_news()
    with pytest.raises(KeyboardInterrupt):
        book.say(2, DONE)
    assert book.futures.open > 0 and book.futures.outlook(60, False, False) is None
    book.futures.settle()
    assert one.done() and two.result().oid == "commit-2"
    assert book.futures.open == 0 and book.futures.outlook(60, False, False) is True


def test_a_commit_on_another_hub_than_the_clients_is_an_error_and_not_a_wait_for_ever(book):
    future = book.push(1)
    book.say(1, DONE, url="http://another-hub.invalid/me/model/commit/abc")
    assert future.done() and future.exception() is not None


def calls_of(work: Any) -> int:
    """How many calls of Python functions a piece of work makes: what it costs on any machine."""
    made = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


def test_the_last_of_many_waiting_pushes_costs_what_the_first_cost(book):
    """The Hub is away: each save takes over the one before, and all futures wait."""

    def save(number: int) -> None:
        book.push(number)
        book.say(number - 1, SUPERSEDED, by=number)
        assert book.futures.open == number

    book.push(1)
    save(2)
    first = calls_of(lambda: save(3))
    for number in range(4, 1200):
        save(number)
    assert calls_of(lambda: save(1200)) <= first + 10
