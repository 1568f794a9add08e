"""Batches in the making: requests digested into columns, and windows, as protos/hivefold/v1/audit.proto has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from hivefold.errors import Reason
from hivefold.oip.digests import NO_DIGEST, TensorDigester
from hivefold.oip.limits import AUDIT_BATCH_CALLERS, AUDIT_BATCH_REQUESTS
from hivefold.oip.tensors import WireTensor
from hivefold.v1 import audit_pb2, error_pb2
from node.serving.audit import Audited, Noted, Window, Windows

_NUMBERS: Final = {reason: error_pb2.Reason.Value(f"REASON_{reason.value}") for reason in Reason}


class Sheet:
    """The requests of one batch, digested under a salt of their own."""

    def __init__(self, salt: bytes) -> None:
        self.message = audit_pb2.InferenceRequests(salt=salt)
        self._digester = TensorDigester(salt)
        self._models: dict[Audited, int] = {}
        self._callers: dict[str, int] = {}
        self._last_us = 0
        self._inputs = bytearray()
        self._outputs = bytearray()

    def __len__(self) -> int:
        return len(self.message.durations_us)

    @property
    def room(self) -> int:
        """How many more requests it takes: each may have another caller."""
        return min(AUDIT_BATCH_REQUESTS - len(self), AUDIT_BATCH_CALLERS - len(self._callers))

    def add(self, noted: Sequence[Noted]) -> None:
        """Digests requests; no more than there is room for."""
        message = self.message
        for each in noted:
            message.time_steps_us.append(each.arrived_us - self._last_us)
            self._last_us = each.arrived_us
            message.durations_us.append(each.took_us)
            message.model_indexes.append(self._models.setdefault(each.audited, len(self._models)))
            message.caller_indexes.append(self._callers.setdefault(each.caller, len(self._callers)))
            message.reasons.append(_NUMBERS[each.reason] if each.reason else error_pb2.REASON_UNSPECIFIED)
            self._inputs += self._digested(each.inputs)
            outputs = zip(each.names, each.outputs, strict=True)
            self._outputs += self._digested([WireTensor(*name, *output) for name, output in outputs])

    def counts(self) -> Counter[Audited]:
        """How many of its requests were of each model."""
        models = list(self._models)
        return Counter(models[index] for index in self.message.model_indexes)

    def finish(self) -> audit_pb2.InferenceRequests:
        """The requests as they are stored."""
        message = self.message
        message.models.extend(audited.model for audited in self._models)
        message.model_digests.extend(audited.digest for audited in self._models)
        message.callers.extend(self._callers)
        message.input_digests, message.output_digests = bytes(self._inputs), bytes(self._outputs)
        return message

    def _digested(self, tensors: Sequence[WireTensor]) -> bytes:
        return self._digester.digest(tensors) if tensors else NO_DIGEST


def batch_of(
    node_id: str, boot_id: str, number: int, taken: Windows, sheet: Sheet | None = None
) -> audit_pb2.InferenceBatch:
    """A batch of windows, and of the requests in `sheet`, which is used up."""
    batch = audit_pb2.InferenceBatch(node_id=node_id, boot_id=boot_id, number=number)
    for window in taken.windows:
        _describe(batch.windows.add(), window, taken)
    if sheet is not None:
        batch.requests.CopyFrom(sheet.finish())
    return batch


def _describe(target: audit_pb2.InferenceWindow, window: Window, taken: Windows) -> None:
    target.model, target.model_digest, target.full = window.audited
    target.start_time.FromMicroseconds(taken.start_us)
    target.span_us, target.request_count, target.row_count = taken.span_us, window.requests, window.rows
    target.unrecorded_count = window.unrecorded
    for reason, count in sorted(window.failures.items()):
        target.failures.add(reason=_NUMBERS[reason], count=count)
    steps, counts = window.durations.steps()
    target.durations.bucket_steps.extend(steps)
    target.durations.counts.extend(counts)
    for rows, count in sorted(window.batches.items()):
        target.batch_rows.append(rows)
        target.batch_counts.append(count)
