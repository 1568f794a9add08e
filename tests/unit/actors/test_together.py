"""Requests in one batch: each gets what it would have got alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actors.backends.echo import EchoSession
from actors.backends.onnxruntime import OnnxRuntimeBackend
from actors.session import Session
from actors.tensors import Array
from actors.together import Batched, Feed, FeedTensor, InferBatch, Together
from hivefold.errors import DataRefusedError, HivefoldError
from hivefold.models import TensorFacts
from hivefold.oip.tensors import join_bytes
from tests.fixtures.onnx_models import doubling_model, save_model

ROWS = np.arange(24, dtype="<f4").reshape(6, 4)


def feed(rows: Array) -> Feed:
    return Feed(len(rows), (FeedTensor(rows.shape, rows.tobytes()),))


def parts(*sizes: int) -> list[Array]:
    found, start = [], 0
    for size in sizes:
        found.append(ROWS[start : start + size])
        start += size
    return found


def run(session: Session, *requests: Array, outputs: tuple[str, ...] = ("y",)) -> Batched:
    return Together(session).run(InferBatch(tuple(feed(rows) for rows in requests), outputs))


def value(batched: Batched, index: int, output: int = 0) -> Array:
    answer = batched.answers[index]
    assert not isinstance(answer, HivefoldError)
    return np.frombuffer(answer[output].data, "<f4").reshape(answer[output].shape)


class Odd:
    """A model from `x` to `y` that does to its rows what the test says."""

    inputs = (TensorFacts("x", "FP32", (-1, 4)),)
    outputs = (TensorFacts("y", "FP32", (-1, 4)),)

    def __init__(self, act: Callable[[Array], Array]) -> None:
        self.act = act
        self.runs: list[int] = []

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        self.runs.append(len(feeds["x"]))
        return [self.act(feeds["x"])]

    def close(self) -> None: ...


def test_each_request_gets_its_own_rows(tmp_path: Path) -> None:
    """Of every output, in the order that was asked for."""
    batches: list[int] = []
    batched = run(EchoSession(batches), *parts(1, 3, 2), outputs=("total", "echo"))
    for index, rows in enumerate(parts(1, 3, 2)):
        np.testing.assert_array_equal(value(batched, index, 0), rows.sum(axis=1))
        np.testing.assert_array_equal(value(batched, index, 1), rows)
    assert batches[0] == 6


def test_a_batch_is_bit_equal_to_its_parts(tmp_path: Path) -> None:
    """In the real runtime, whatever the sizes."""
    doubling_model(tmp_path / "m.onnx")
    session = OnnxRuntimeBackend(1).open(tmp_path / "m.onnx")
    batched = run(session, *parts(1, 2, 3))
    for index, rows in enumerate(parts(1, 2, 3)):
        np.testing.assert_array_equal(value(batched, index), rows * 2)
    assert batched.runs == 1


def test_a_classifier_gives_the_same_bits_alone_and_in_company(tmp_path: Path) -> None:
    """Matrix products too: the runtime's kernels give each row the same, however many come with it."""
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((4, 10)).astype("f4")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 10])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    session = OnnxRuntimeBackend(1).open(path)
    requests = [rng.standard_normal((rows, 4)).astype("f4") for rows in (1, 1, 3, 8, 1, 5)]
    together = run(session, *requests)
    for index, rows in enumerate(requests):
        np.testing.assert_array_equal(value(together, index), value(run(session, rows), 0))


def test_one_bad_request_fails_alone() -> None:
    """What the runtime refuses as a batch is run one by one: the others get their answers."""

    def refuse_large(rows: Array) -> Array:
        if rows.max() > 15:
            raise DataRefusedError("too large")
        return rows

    batched = run(Odd(refuse_large), *parts(2, 2, 2))
    assert isinstance(batched.answers[2], DataRefusedError)
    np.testing.assert_array_equal(value(batched, 1), parts(2, 2)[1])
    assert not batched.apart


@pytest.mark.parametrize(
    "mixing",
    [
        pytest.param(lambda rows: rows - rows.mean(axis=0), id="the mean over the batch"),
        pytest.param(lambda rows: rows[::-1], id="rows in another order"),
        pytest.param(lambda rows: rows[:1], id="one row for all"),
        pytest.param(lambda rows: rows.sum(), id="one value for all"),
    ],
)
def test_a_model_that_mixes_rows_is_found_out(mixing: Callable[[Array], Array]) -> None:
    """Its first batch gets the answers of its parts, and it says that it must be run apart."""
    batched = run(Odd(mixing), *parts(2, 2))
    assert batched.apart
    for index, rows in enumerate(parts(2, 2)):
        np.testing.assert_array_equal(value(batched, index), np.asarray(mixing(rows), "<f4"))


def test_a_model_is_put_to_the_proof_once() -> None:
    """The first batch costs two runs more, later ones none."""
    session = Odd(lambda rows: rows * 2)
    together = Together(session)
    for _ in range(2):
        together.run(InferBatch(tuple(feed(rows) for rows in parts(2, 2)), ("y",)))
    assert session.runs == [4, 2, 2, 4]


def test_an_output_of_another_type_than_declared_is_refused() -> None:
    """Its bytes would be read as something else."""
    batched = run(Odd(lambda rows: rows.astype("<f8")), ROWS)
    assert isinstance(batched.answers[0], DataRefusedError)


def test_bytes_that_lie_anywhere_are_taken(tmp_path: Path) -> None:
    """Also where no array may begin."""
    rows = memoryview(b"\0" + ROWS.tobytes())[1:]
    batched = Together(Odd(lambda rows: rows)).run(InferBatch((Feed(6, (FeedTensor((6, 4), rows),)),), ("y",)))
    np.testing.assert_array_equal(value(batched, 0), ROWS)


def test_text_and_bf16_pass_through_the_runtime(tmp_path: Path) -> None:
    """Also together: the texts of several requests, the bits of half numbers that NumPy does not know."""
    texts = [join_bytes([b"a", "é".encode()]), join_bytes([b"", "語".encode()])]
    halves = [bytes([0x80, 0x3F, 0x00, 0x40]), bytes([0x00, 0xC0, 0x80, 0x7F])]
    for name, kind, given in (("text", TensorProto.STRING, texts), ("half", TensorProto.BFLOAT16, halves)):
        path = tmp_path / f"{name}.onnx"
        save_model(path, [("Identity", ["x"], "y")], [None, 2], x=kind, y=kind)
        session = OnnxRuntimeBackend(1).open(path)
        requests = tuple(Feed(1, (FeedTensor((1, 2), data),)) for data in given)
        batched = Together(session).run(InferBatch(requests, ("y",)))
        answers = [answer for answer in batched.answers if not isinstance(answer, HivefoldError)]
        assert [(bytes(answer[0].data), answer[0].shape) for answer in answers] == [(data, (1, 2)) for data in given]
        assert batched.runs == 1
        assert not batched.apart


def test_text_that_is_no_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    """The runtime would fail on it with less to say; the other request of the batch is answered."""
    path = tmp_path / "m.onnx"
    save_model(path, [("Identity", ["x"], "y")], [None, 1], x=TensorProto.STRING, y=TensorProto.STRING)
    requests = tuple(Feed(1, (FeedTensor((1, 1), join_bytes([text])),)) for text in (b"\xff", b"fine"))
    first, second = Together(OnnxRuntimeBackend(1).open(path)).run(InferBatch(requests, ("y",))).answers
    assert isinstance(first, HivefoldError)
    assert "'x'" in first.message
    assert not isinstance(second, HivefoldError)
