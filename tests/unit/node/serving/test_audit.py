"""What a node notes of its inference, over fakes: levels, counts, callers, bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hivefold.errors import DataRefusedError, InvalidRequestError, Reason
from hivefold.oip import limits
from hivefold.oip.requests import InferRequest, write_request
from hivefold.oip.tensors import from_array
from node.servicers.inference import InferenceServicer
from node.serving import audit
from node.serving.audit import Audited, Ledger, Noted, Window
from node.serving.inference import FORWARDED
from tests.fixtures.serving import Serving, serving

ROWS = np.arange(8, dtype="<f4").reshape(2, 4)
MODEL = Audited("m@1", "0" * 64, full=True)


async def asked(node: Serving) -> Ledger:
    """Two requests that are answered and one that does not fit, by one caller."""
    ledger = node.inference.ledger = Ledger(0)
    await node.infer(from_array("x", ROWS))
    await node.infer(from_array("x", ROWS[:1]))
    with pytest.raises(DataRefusedError):
        await node.infer(from_array("x", ROWS.reshape(4, 2)))
    return ledger


def only(ledger: Ledger) -> Window:
    (window,) = ledger.take_windows(1).windows
    return window


async def test_windows_count_what_happened(tmp_path: Path) -> None:
    """By default: requests, rows, failures by reason, how long, batches; nothing of a request by itself."""
    async with serving(tmp_path) as node:
        ledger = await asked(node)
        window = only(ledger)

        assert window.audited == ("echo@1", node.model.digest, False)
        assert (window.requests, window.rows, window.failures) == (3, 3, {Reason.SHAPE_MISMATCH: 1})
        assert (window.durations.count, window.batches) == (2, {1: 1, 2: 1})
        assert ledger.take_noted() == []
        assert ledger.take_windows(2).windows == ()


async def test_a_full_audit_keeps_each_request(tmp_path: Path) -> None:
    """When, how long, who, what went in and what came out, or why not."""
    async with serving(tmp_path, labels={"audit": "full"}) as node:
        ledger = await asked(node)
        good, _, bad = ledger.take_noted()

        assert (good.audited.full, good.caller, good.reason) == (True, "tester", None)
        assert bytes(good.inputs[0].data) == ROWS.tobytes()
        assert [name for name, _ in good.names] == ["echo", "total"]
        assert bytes(good.outputs[0].data) == ROWS.tobytes()
        assert (bad.reason, bad.outputs, len(bad.inputs)) == (Reason.SHAPE_MISMATCH, (), 1)
        assert only(ledger).requests == 3


async def test_without_audit_nothing_is_noted(tmp_path: Path) -> None:
    """The label says none."""
    async with serving(tmp_path, labels={"audit": "none"}) as node:
        ledger = await asked(node)

        assert (ledger.take_noted(), ledger.take_windows(1).windows) == ([], ())


async def test_a_request_that_cannot_be_read_counts_too(tmp_path: Path) -> None:
    """A known model was asked, however badly."""
    async with serving(tmp_path, labels={"audit": "full"}) as node:
        ledger = node.inference.ledger = Ledger(0)
        message = write_request(InferRequest("echo", "", "", (from_array("x", ROWS),), ()))
        message.raw_input_contents.append(b"more")
        with pytest.raises(InvalidRequestError):
            await node.raw(message.SerializeToString())

        (noted,) = ledger.take_noted()
        assert (noted.reason, noted.inputs) == (Reason.INVALID_ARGUMENT, ())
        assert only(ledger).failures == {Reason.INVALID_ARGUMENT: 1}


@pytest.mark.parametrize(("level", "mark"), [("full", "node-a tester"), ("windows", "node-a")])
async def test_a_request_that_is_passed_on_says_who_asked_where_that_is_recorded(
    tmp_path: Path, level: str, mark: str
) -> None:
    """It counts on the node that answers it, not here."""
    async with serving(tmp_path, labels={"audit": level}) as node:
        ledger = node.inference.ledger = Ledger(0)
        node.hear("node-b", digest=node.model.digest)
        node.others.answers["node-b:1"] = b""
        await node.raw(write_request(InferRequest("echo", "", "", (from_array("x", ROWS),), ())).SerializeToString())

        assert node.others.marks == [mark]
        assert ledger.take_windows(1).windows == ()


def noted(size: int) -> Noted:
    return Noted(MODEL, 0, 0, "", None, (from_array("x", np.zeros(size, "u1")),), (), ())


def test_more_requests_than_may_wait_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by bytes; taken out, there is room again."""
    monkeypatch.setattr(audit, "AUDIT_HELD_REQUESTS", 3)
    monkeypatch.setattr(audit, "AUDIT_HELD_BYTES", 100)
    ledger = Ledger(0)
    for size in (1, 1, 1, 1):
        ledger.note(noted(size))
    assert (len(ledger.take_noted()), ledger.window(MODEL).unrecorded) == (3, 1)

    for size in (1000, 1):
        ledger.note(noted(size))
    assert (len(ledger.take_noted()), ledger.window(MODEL).unrecorded) == (1, 2)


def test_enough_requests_wake_who_digests_them() -> None:
    """Once, at the number that is set for it."""
    ledger = Ledger(0)
    woken: list[bool] = []
    ledger.on_crowd = lambda: woken.append(True)

    for _ in range(limits.AUDIT_DIGEST_AT + 1):
        ledger.note(noted(1))

    assert woken == [True]


def test_windows_that_are_given_back_go_on() -> None:
    """What was counted meanwhile is added, and the window begins where the first one did."""
    ledger = Ledger(10)
    ledger.succeeded(MODEL, 2, 5_000)
    ledger.failed(MODEL, Reason.CANCELLED)
    ledger.ran(MODEL, 40)
    taken = ledger.take_windows(20)
    ledger.succeeded(MODEL, 1, 7_000)
    ledger.give_back(taken)

    again = ledger.take_windows(30)

    assert (again.start_us, again.span_us) == (10, 20)
    (window,) = again.windows
    assert (window.requests, window.rows, window.batches) == (3, 3, {64: 1})
    assert window.durations.count == 2


class Call:
    """What gRPC tells of a call."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.metadata = metadata

    def time_remaining(self) -> float:
        return 10.0

    def peer(self) -> str:
        return "ipv4:10.0.0.9:1234"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata


@pytest.mark.parametrize(
    ("metadata", "caller"),
    [
        ((), "ipv4:10.0.0.9:1234"),
        ((("other", "x"),), "ipv4:10.0.0.9:1234"),
        (((FORWARDED, "node-b ipv4:10.0.0.5:99"),), "ipv4:10.0.0.5:99 via ipv4:10.0.0.9:1234"),
        (((FORWARDED, "x " + "y" * 500),), "y" * 64 + " via ipv4:10.0.0.9:1234"),
    ],
)
async def test_whoever_says_to_pass_a_request_on_is_named_itself(
    tmp_path: Path, metadata: tuple[tuple[str, str], ...], caller: str
) -> None:
    """Anybody can say so: the address that the node saw is always there, however much is said before it."""
    async with serving(tmp_path, labels={"audit": "full"}) as node:
        ledger = node.inference.ledger = Ledger(0)
        data = write_request(InferRequest("echo", "", "", (from_array("x", ROWS),), ())).SerializeToString()
        await InferenceServicer(node.inference, lambda: True).model_infer(data, Call(*metadata))

        (noted,) = ledger.take_noted()
        assert noted.caller == caller
