"""When an upload counts as one that hangs: after a time without a byte, however few come in between."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from hub_callbacks.pushing import stall

TIMEOUT = 4.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A time that passes when the test says so."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stall, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            yield near, far


@pytest.mark.parametrize("sends", [True, False], ids=["sent", "received"])
def test_what_moves_a_little_before_each_time_out_is_slow_and_what_then_rests_is_stalled(clock, connection, sends):
    near, far = connection if sends else connection[::-1]
    watch = stall.StallWatch(TIMEOUT)
    for _ in range(10):
        clock.now += TIMEOUT - 0.5
        near.sendall(b"x")
        assert far.recv(1) == b"x"
        assert not watch.is_stalled()
    clock.now += TIMEOUT - 0.5
    assert not watch.is_stalled()
    clock.now += 1
    assert watch.is_stalled()
