"""Batches in the making: requests digested into columns, and windows, as protos/hivefold/v1/audit.proto has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from hivefold.errors import Reason
from hivefold.oip.digests import NO_DIGEST, TensorDigester
from hivefold.oip.limits import AUDIT_BATCH_CALLERS, AUDIT_BATCH_REQUESTS
from hivefold.v1 import audit_pb2, error_pb2
from node.serving.audit import Audited, Noted, Window, Windows

_NONE: Final = error_pb2.REASON_UNSPECIFIED
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
        message, models, callers, digest = self.message, self._models, self._callers, self._digester.digest
        times_us = [self._last_us, *[each.arrived_us for each in noted]]
        self._last_us = times_us[-1]
        message.time_steps_us.extend([later - earlier for earlier, later in pairwise(times_us)])
        message.durations_us.extend([each.took_us for each in noted])
        message.model_indexes.extend([models.setdefault(each.audited, len(models)) for each in noted])
        message.caller_indexes.extend([callers.setdefault(each.caller, len(callers)) for each in noted])
        message.reasons.extend([_NUMBERS[each.reason] if each.reason else _NONE for each in noted])
        for each in noted:
            self._inputs += digest(each.inputs) if each.inputs else NO_DIGEST
            outputs = [(*name, *output) for name, output in zip(each.names, each.outputs, strict=True)]
            self._outputs += digest(outputs) if outputs else NO_DIGEST

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
