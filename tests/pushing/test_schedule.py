"""What is decided of the pushes that wait, from what is known of each: no Hub, no pusher."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from hub_callbacks.checkpoints.files import LAST_CHECKPOINT
from hub_callbacks.checkpoints.retention import Retention
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.push import (
    CARD,
    MODEL,
    OUTPUTS,
    CreateRepository,
    LookForOtherRun,
    NodeFiles,
    OtherNodes,
    Push,
    PushPart,
    RemoveBranch,
    Target,
)
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.outbox.snapshot import Frozen
from hub_callbacks.pushing.files import disk_of
from hub_callbacks.pushing.node_files import Awaited, NodeWaits
from hub_callbacks.pushing.retry_policy import RetryPolicy
from hub_callbacks.pushing.schedule import (
    PATIENCE,
    Done,
    GiveUp,
    Hold,
    Keep,
    Known,
    Room,
    Supersede,
    decide,
    giving_way,
    next_push,
    sendable,
    taken_over,
)
from outboxes import put

OWN_FAULT = RetryPolicy("too large", ledger.REFUSED)
NO_RIGHTS = RetryPolicy("no rights", ledger.REFUSED, all_pushes=True)


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "_hub_sync")


def facts(pushes: Sequence[Push], known: Mapping[str, Known] | None = None) -> dict[str, Known]:
    return {push.id: Known(is_durable=True) for push in pushes} | dict(known or {})


def over(pushes: Sequence[Push], done: Done | None = None, known: Mapping[str, Known] | None = None) -> Any:
    return taken_over(pushes, facts(pushes, known), done or {})


def gives_way(pushes: Sequence[Push], limit: int, busy: str | None = None) -> Any:
    return giving_way(pushes, Room(limit, disk_of(pushes)), busy)


def queue(outbox: Outbox, *pushes: tuple[set[str], dict[str, Any]]) -> list[Any]:
    return [put(outbox, dict.fromkeys(sorted(slots), b"x") if slots else None, **more) for slots, more in pushes]


@pytest.mark.parametrize(
    ("older", "newer", "given_up"),
    [
        ({MODEL}, {MODEL}, {MODEL}),
        ({MODEL, LAST_CHECKPOINT}, {MODEL, LAST_CHECKPOINT}, {MODEL, LAST_CHECKPOINT}),
        ({MODEL, LAST_CHECKPOINT}, {MODEL}, {MODEL}),
        ({MODEL, "checkpoint-1"}, {MODEL, "checkpoint-2"}, {MODEL}),
        ({MODEL, OUTPUTS}, {MODEL}, {MODEL}),
        ({"checkpoint-1"}, {MODEL, "checkpoint-2"}, set()),
    ],
)
def test_a_pending_push_gives_up_what_a_newer_one_writes_too(tmp_path, older, newer, given_up):
    first, second = queue(Outbox(tmp_path), (older, {}), (newer, {}))
    assert over([first, second]) == {first.id: dict.fromkeys(given_up, second.id), second.id: {}}


def test_another_repository_or_branch_takes_over_nothing(tmp_path):
    targets = [Target("local/a"), Target("local/b"), Target("local/a", "branch")]
    pushes = queue(Outbox(tmp_path), *(({MODEL}, {"target": target}) for target in targets))
    assert set(map(str, over(pushes).values())) == {"{}"}


def test_visibility_and_the_name_of_main_make_no_other_place(tmp_path):
    targets = [Target("local/a"), Target("local/a", "main", private=True)]
    first, second = queue(Outbox(tmp_path), *(({MODEL}, {"target": target}) for target in targets))
    assert over([first, second])[first.id] == {MODEL: second.id}


def test_the_card_is_taken_over_by_itself(tmp_path):
    first, second = queue(Outbox(tmp_path), ({"checkpoint-1"}, {"has_card": True}), ({MODEL}, {"has_card": True}))
    assert over([first, second])[first.id] == {CARD: second.id}


def test_the_newest_of_several_takes_over(tmp_path):
    first, second, third = queue(Outbox(tmp_path), ({MODEL}, {}), ({MODEL}, {}), ({MODEL}, {}))
    found = over([first, second, third])
    assert found == {first.id: {MODEL: third.id}, second.id: {MODEL: third.id}, third.id: {}}


def test_pushes_that_are_kept_give_way_only_to_what_is_there(tmp_path):
    first, second = queue(Outbox(tmp_path), ({MODEL}, {"keep": True}), ({MODEL}, {"keep": True}))
    assert over([first, second]) == {first.id: {}, second.id: {}}
    done = {(first.target.place, MODEL): second.id}
    assert over([first], done) == {first.id: {MODEL: second.id}}


def test_the_best_checkpoint_is_taken_over_by_a_better_one_only(tmp_path):
    slots = {MODEL, LAST_CHECKPOINT}

    def given_up(*bests: int) -> list[set[str]]:
        outbox = Outbox(tmp_path / "-".join(map(str, bests)))
        saves = ((slots, {"step": n + 1, "retention": Retention(best=best)}) for n, best in enumerate(bests))
        return [set(given) for given in over(queue(outbox, *saves)).values()][::-1]

    assert given_up(1, 1, 1) == [{MODEL}, slots, set()]
    assert given_up(1, 2, 2) == [slots, {MODEL}, set()]
    assert given_up(1, 1, 3) == [slots, slots, set()]


def test_what_is_there_already_is_never_overwritten_by_what_came_before(tmp_path):
    (push,) = queue(Outbox(tmp_path), ({MODEL, "checkpoint-1"}, {}))
    place = push.target.place
    assert over([push], {(place, MODEL): "000009"})[push.id] == {MODEL: "000009"}
    assert over([push], {(place, MODEL): "000000"})[push.id] == {}
    assert over([push], {("other@main", MODEL): "000009"})[push.id] == {}


def test_what_the_hub_refused_takes_over_nothing(tmp_path):
    first, second = queue(Outbox(tmp_path), ({MODEL}, {}), ({MODEL}, {}))
    assert over([first, second], known={second.id: Known(refused=OWN_FAULT)})[first.id] == {}


@pytest.mark.parametrize(
    ("known", "action"),
    [
        (Known(is_durable=True), Supersede),
        (Known(is_durable=False), Hold),  # a loss of power could take both
        (Known(is_durable=True, damaged=frozenset({MODEL})), Keep),  # it would be lost
        (Known(is_durable=True, damaged=frozenset({"checkpoint-1"})), Supersede),
        (Known(is_durable=True, refused=OWN_FAULT), Keep),
        (Known(is_durable=True, refused=NO_RIGHTS), Supersede),  # what is newer has the same rights
        (Known(is_durable=True, failures=9), Supersede),
    ],
)
def test_a_push_goes_for_a_newer_one_by_what_is_known_of_that(outbox, known, action):
    first, second = queue(outbox, ({MODEL}, {}), ({MODEL}, {}))
    assert [type(a) for a in decide([first, second], facts([first], {second.id: known}), {})] == [action, Keep]


def test_what_is_decided_of_each_push(outbox):
    pushes = queue(
        outbox,
        ({MODEL, "checkpoint-1"}, {"has_card": True}),
        ({MODEL}, {}),
        ({MODEL}, {"keep": True}),
        ({MODEL, "checkpoint-2"}, {"has_card": True}),
    )
    one, two, three, four = pushes
    place = one.target.place
    known = facts(pushes)
    assert decide(pushes, known, {}) == [
        Keep(one.without(frozenset({MODEL, CARD}))),
        Supersede(two, four.id),
        Keep(three),
        Keep(four),
    ]
    assert decide(pushes, known, {}, held=[two.id])[1] == Keep(two)
    assert decide(pushes, known, {}, busy=two.id)[1] == Keep(two)
    assert decide(pushes, known, {(place, MODEL): four.id})[2] == Supersede(three, four.id)
    room = Room(0, disk_of(pushes))
    given_up = decide(pushes, known, {}, room=room)
    assert given_up[0] == GiveUp(one.without(frozenset({MODEL, CARD})), frozenset({"checkpoint-1"}))
    assert given_up[2] == GiveUp(three, frozenset({MODEL}))
    assert given_up[3] == Keep(four)


@pytest.mark.parametrize("content", [CreateRepository(), LookForOtherRun()])
def test_of_those_that_make_sure_of_a_repository_the_newest_is_enough(outbox, content):
    pushes = [put(outbox, content=CreateRepository()), put(outbox, content=content)]
    assert decide(pushes, facts(pushes), {}) == [Supersede(pushes[0], pushes[1].id), Keep(pushes[1])]


def test_what_a_node_sends_is_taken_over_by_nothing(outbox):
    files = [NodeFiles(step, 1, PushPart("node-files", {}, f"parts/{step}")) for step in (1, 2)]
    pushes = [put(outbox, content=content) for content in files]
    assert decide(pushes, facts(pushes), {}) == [Keep(push) for push in pushes]


def test_a_branch_is_not_removed_while_a_push_takes_files_from_it(outbox):
    save = put(outbox, {"checkpoint-1": b"x"}, others=OtherNodes("parts", (1,)))
    removal = put(outbox, content=RemoveBranch(), target=Target("local/model", "parts"))
    assert sendable([save, removal], {}) == [save]
    assert sendable([removal], {}) == [removal]
    assert sendable([save, removal], {save.id: Known(refused=OWN_FAULT)}) == []


def test_which_push_is_next(outbox):
    one, two, three = queue(outbox, ({"checkpoint-1"}, {}), ({"checkpoint-2"}, {}), ({MODEL}, {"urgent": True}))
    known = facts([one, two, three])
    assert next_push([one, two], known, NodeWaits()) == one
    assert next_push([one, two, three], known, NodeWaits()) == three
    known[one.id].failures = PATIENCE
    assert next_push([one, two], known, NodeWaits()) == two
    known[two.id].failures = PATIENCE
    assert next_push([one, two], known, NodeWaits()) == one


def test_an_urgent_push_that_fails_again_and_again_lets_others_pass(outbox):
    one, urgent = queue(outbox, ({"checkpoint-1"}, {}), ({MODEL}, {"urgent": True}))
    known, tried = facts([one, urgent]), []
    for _ in range(4 * PATIENCE):
        push = next_push([one, urgent], known, NodeWaits())
        known[push.id].failures += 1
        tried.append(push.id)
    assert tried[:PATIENCE] == [urgent.id] * PATIENCE and tried.count(one.id) >= PATIENCE


def test_a_push_that_has_to_come_in_order_is_passed_by_none(outbox):
    one, two = queue(outbox, ({MODEL}, {"keep": True}), ({MODEL}, {"keep": True}))
    known = facts([one, two], {one.id: Known(failures=10 * PATIENCE)})
    assert next_push([one, two], known, NodeWaits()) == one


def test_pushes_in_order_stay_in_order_behind_one_that_makes_sure_of_the_repository(outbox):
    """The Hub was away from the start: none of them is to pass the one before it."""
    create = put(outbox, content=CreateRepository())
    saves = [put(outbox, {MODEL: b"x"}, keep=True) for _ in range(3)]
    waiting, known, tried = [create, *saves], facts([create, *saves]), []
    for _ in range(20):
        push = next_push(waiting, known, NodeWaits())
        known[push.id].failures += 1
        tried.append(push.id)
    assert set(tried) == {create.id, saves[0].id}


def test_what_waits_for_other_nodes_is_passed_by_what_need_not(outbox):
    save = put(outbox, {"checkpoint-1": b"x"}, others=OtherNodes("parts", (1,)))
    card = put(outbox, {MODEL: b"x"})
    waits = NodeWaits()
    assert next_push([save, card], facts([save, card]), waits) == card
    waits.looked(Awaited("parts", frozenset({1}), ()))  # the files of its step have come
    assert next_push([save, card], facts([save, card]), waits) == save


def test_room_is_made_by_the_oldest_that_is_written_again_then_by_checkpoints_never_by_the_newest(outbox):
    pushes = [put(outbox, {MODEL: b"m" * 1000, f"checkpoint-{n}": b"c" * 1000}, keep=True) for n in (1, 2, 3)]
    first, second, third = (push.id for push in pushes)
    assert gives_way(pushes, 6000) == {}
    assert gives_way(pushes, 5500) == {first: {MODEL}}
    assert gives_way(pushes, 4000) == {first: {MODEL}, second: {MODEL}}
    assert gives_way(pushes, 3500) == {first: {MODEL, "checkpoint-1"}, second: {MODEL}}
    assert gives_way(pushes, 0) == {first: {MODEL, "checkpoint-1"}, second: {MODEL, "checkpoint-2"}}
    assert gives_way(pushes, 0, busy=first) == {second: {MODEL, "checkpoint-2"}}
    assert third not in gives_way(pushes, 0)


def test_room_counts_only_what_nothing_else_keeps(outbox, tmp_path):
    original = tmp_path / "weights.bin"
    original.write_bytes(os.urandom(300_000))
    pushes = [put(outbox, {f"checkpoint-{n}": original}) for n in (1, 2)] + [put(outbox, {"checkpoint-3": b"x"})]
    assert gives_way(pushes, 1000) == {}
    original.unlink()
    first, second = ({push.id: {f"checkpoint-{n}"}} for n, push in enumerate(pushes[:2], 1))
    assert gives_way(pushes, 1000) == first | second, "one of the two alone frees nothing"


def test_what_a_node_sends_makes_room_too(outbox):
    def node_files(step: int) -> Push:
        with outbox.stage() as staged:
            (staged / "files").mkdir()
            (staged / "files/0").write_bytes(b"x" * 1000)
            part = PushPart("node-files", {"a": Frozen("files/0", 1000)}, f"parts/{step}")
            content = NodeFiles(step, 1, part)
            return outbox.submit(staged, Push("", staged, "run", 0.0, Target("local/model"), "files", content))

    pushes = [node_files(step) for step in (1, 2, 3)]
    assert gives_way(pushes, 2500) == {pushes[0].id: {"node-files"}}
    assert pushes[0].without(frozenset({"node-files"})).parts == ()
