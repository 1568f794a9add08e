"""Files that claim what no model needs: the answer is a passport in bounded time and memory, and never SAFE."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from hivefold.errors import DataRefusedError, Reason
from hivefold.models.passport.detect import inspect_source
from hivefold.models.passport.draft import Budget, Draft
from hivefold.models.passport.facts import Passport, Verdict
from hivefold.models.passport.inspection import passport
from hivefold.models.passport.messages import from_proto, to_proto
from hivefold.models.passport.source import of_bytes
from tests.fixtures.passports import EXPECTED, MODELS

Inspect = Callable[[bytes], Passport]


@pytest.fixture
def inspect(tmp_path: Path) -> Inspect:
    def inspected(content: bytes) -> Passport:
        path = tmp_path / "m"
        path.write_bytes(content)
        return passport(path)

    return inspected


def codes(found: Passport) -> set[str]:
    return {finding.code for finding in found.safety.findings}


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def gguf(*values: bytes, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + b"".join(values)


def gguf_text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tensor(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def packed(name: str, size: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr(name, bytes(size))
    return made.getvalue()


BROKEN = {
    "an endless header": struct.pack("<Q", 1 << 40) + b"{" + b" " * 100,
    "nested JSON": safetensors(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "nested lists": safetensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "a repeated tensor": safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(tensor(0, 4)).encode(),) * 2), bytes(4)),
    "overlapping tensors": safetensors({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)),
    "a hole": safetensors({"a": tensor(0, 4), "b": tensor(6, 8)}, bytes(8)),
    "tensors behind the end": safetensors({"a": tensor(0, 400)}, bytes(4)),
    "bytes behind the tensors": safetensors({"a": tensor(0, 4)}, bytes(40)),
    "another size than the shape": safetensors({"a": tensor(0, 4, [5])}, bytes(4)),
    "an absurd shape": safetensors({"a": tensor(0, 4, [1 << 60, 1 << 60])}, bytes(4)),
    "an absurd number": safetensors(
        b'{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 5000), bytes(4)
    ),
    "a negative size": safetensors({"a": tensor(0, 4, [-4])}, bytes(4)),
    "an unknown type": safetensors({"a": tensor(0, 4, [4], "X9")}, bytes(4)),
    "gguf with absurd counts": gguf(tensors=1 << 60, keys=1 << 60),
    "gguf with an absurd text": gguf(struct.pack("<Q", 1 << 62), keys=1),
    "gguf with an absurd array": gguf(gguf_text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 60), keys=1),
    "gguf with an absurd array of numbers": gguf(gguf_text(b"k") + struct.pack("<IIQ", 9, 4, 1 << 62), keys=1),
    "gguf with nested arrays": gguf(gguf_text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50, keys=1),
    "gguf with an absurd shape": gguf(gguf_text(b"t") + struct.pack("<IQQQQIQ", 4, *(1 << 40,) * 4, 0, 0), tensors=1),
    "gguf without its tensors": gguf(gguf_text(b"t") + struct.pack("<IQIQ", 1, 64, 0, 0), tensors=1),
    "a pickle with an absurd text": b"\x80\x04X\xff\xff\xff\x7fabc.",
    "a pickle with an absurd memo": b"\x80\x04Nr\xff\xff\xff\xffj\xff\xff\xff\xff",
    "a pickle of marks": b"\x80\x04" + b"(" * 100_000,
    "a zip without a directory": b"PK\x03\x04" + bytes(100),
    "an HDF5 file that is cut": (MODELS / "cnn.h5").read_bytes()[:900],
    "an empty file": b"",
    "a text": b"hello, this is a text\n" * 10,
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_never_safe(inspect: Inspect, name: str) -> None:
    """Nor does it raise, hang or take memory."""
    found = inspect(BROKEN[name])

    assert found.safety.verdict in {Verdict.UNKNOWN, Verdict.SUSPICIOUS, Verdict.UNSAFE}
    assert found.safety.findings or found.safety.coverage


def test_a_pickle_that_doubles_itself_stays_small(inspect: Inspect) -> None:
    """Forty tuples of the one before, twice: 2**40 leaves for whoever walks them all."""
    assert inspect(b"\x80\x04)" + b"2\x86" * 40 + b".").safety.verdict is Verdict.SAFE
    nested = b"cnumpy.core.multiarray\n_reconstruct\n)R" + b"2\x86" * 40
    assert inspect(b"\x80\x04" + nested + b".").parameter_count is None


def test_deep_nesting_is_no_recursion(inspect: Inspect) -> None:
    """A hundred thousand tuples in each other."""
    assert inspect(b"\x80\x04)" + b"\x85" * 100_000 + b".").safety.verdict is Verdict.SAFE


def test_a_pickle_that_contains_itself_ends(inspect: Inspect) -> None:
    """A list that is its own item."""
    items: list[object] = []
    items.append(items)
    assert inspect(pickle.dumps(items)).safety.verdict is Verdict.SAFE


def test_a_file_with_too_many_parts_is_given_up() -> None:
    """Opcodes, fields and names are counted together: more are not looked at, and that is said."""
    draft = Draft(Budget(1000))
    inspect_source(of_bytes("m", b"\x80\x04" + b"N0" * 1000 + b"N."), draft)

    assert draft.verdict is Verdict.UNKNOWN
    assert "more than 1000 parts" in draft.findings[0].detail


def test_an_archive_that_explodes_is_not_unpacked(inspect: Inspect) -> None:
    """Seventy megabytes of zeros are 70 KB."""
    found = inspect(packed("a/weights.pkl", 70 << 20))

    assert found.safety.verdict is Verdict.UNSAFE
    assert "zip-bomb" in codes(found)


def test_a_packed_pickle_that_explodes_is_not_unpacked(inspect: Inspect) -> None:
    """joblib's compression, with 80 MB of zeros."""
    found = inspect(zlib.compress(b"\x80\x04" + bytes(80 << 20), 1))

    assert found.safety.verdict is Verdict.UNKNOWN
    assert "not looked at" in found.safety.coverage[0]


def overlapping() -> bytes:
    """An archive whose entries share their bytes, as in zip bombs that cannot be unpacked recursively."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/x.pkl", pickle.dumps([1] * 100, 2))
        first, second = archive.infolist()
        second.header_offset = first.header_offset
    return made.getvalue()


def test_entries_that_share_bytes_are_unsafe(inspect: Inspect) -> None:
    """Each byte of an archive belongs to one entry."""
    assert {"zip-overlap", "zip-mismatch"} & codes(inspect(overlapping()))


def onnx_model(nodes: list[onnx.NodeProto], stored: list[onnx.TensorProto], domains: tuple[str, ...] = ()) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        stored,
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())


def numbers(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


FOLDED = {
    "ConstantOfShape": ([helper.make_node("ConstantOfShape", ["s"], ["y"])], [numbers("s", 1 << 20, 1 << 20)]),
    "Expand": (
        [helper.make_node("Expand", ["o", "s"], ["y"])],
        [numbers("s", 1 << 20, 1 << 20), helper.make_tensor("o", TensorProto.FLOAT, [1, 1], [1])],
    ),
    "Tile": (
        [helper.make_node("Tile", ["o", "s"], ["y"])],
        [numbers("s", 1 << 20, 1 << 20), helper.make_tensor("o", TensorProto.FLOAT, [1, 1], [1])],
    ),
    "in two steps": (
        [
            helper.make_node("Concat", ["s", "s"], ["t"], axis=0),
            helper.make_node("ConstantOfShape", ["t"], ["y"]),
        ],
        [numbers("s", 1 << 20)],
    ),
    "computed": (
        [
            helper.make_node("Mul", ["s", "s"], ["t"]),
            helper.make_node("ConstantOfShape", ["t"], ["y"]),
        ],
        [numbers("s", 1 << 10, 1 << 10)],
    ),
}


def chain(operator: str, count: int, **attributes: Any) -> list[onnx.NodeProto]:
    nodes = [helper.make_node(operator, [f"s{n}"] * 2, [f"s{n + 1}"], **attributes) for n in range(count)]
    return [*nodes, helper.make_node("ConstantOfShape", [f"s{count}"], ["y"])]


CHAINS = {
    "squares of squares": chain("Mul", 200),
    "twice as long each time": chain("Concat", 200, axis=0),
    "one dimension more each time": [
        *(helper.make_node("Unsqueeze", [f"s{n}", "zero"], [f"s{n + 1}"]) for n in range(2000)),
        helper.make_node("Identity", ["s2000"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", CHAINS)
def test_shapes_that_grow_without_end_are_given_up(inspect: Inspect, name: str) -> None:
    """Numbers, lists and ranks that double with every operator."""
    found = inspect(onnx_model(CHAINS[name], [numbers("s0", 3, 3), numbers("zero", 0)]))

    assert found.notes
    assert found.format == "onnx"


def test_counts_beyond_64_bits_are_cut(inspect: Inspect) -> None:
    """A pickle may claim any shape."""
    storage = b"((" + b"\x8c\x07storage" + b"ctorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x01tQ"
    shape = b"(" + b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
    value = b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"K\x00" + shape + shape[1:] + b"t)\x89NtR"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}X\x01\x00\x00\x00w" + value + b"s.")
        archive.writestr("a/data/0", b"1234")
    found = inspect(made.getvalue())

    assert found.parameter_count == (1 << 63) - 1
    assert from_proto(to_proto(found)) == found


@pytest.mark.parametrize("name", FOLDED)
def test_a_tensor_that_a_runtime_would_make_from_numbers_alone_is_unsafe(inspect: Inspect, name: str) -> None:
    """A few bytes that become terabytes while the model is loaded."""
    found = inspect(onnx_model(*FOLDED[name]))

    assert found.safety.verdict is Verdict.UNSAFE
    assert codes(found) == {"onnx-bomb"}


def external(location: str) -> bytes:
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 2])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return onnx_model([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.bin", "a/../../w.bin", "..\\w.bin", "~/w", "C:\\w", "file:w"]
)
def test_external_data_outside_the_folder_is_unsafe(inspect: Inspect, location: str) -> None:
    """Loading it would read any file of the machine."""
    assert inspect(external(location)).safety.verdict is Verdict.UNSAFE


def test_external_data_beside_the_model_is_suspicious(inspect: Inspect) -> None:
    """It may be meant; it is never read here."""
    assert inspect(external("model.onnx.data")).safety.verdict is Verdict.SUSPICIOUS


def test_a_custom_operator_is_suspicious(inspect: Inspect) -> None:
    """A runtime would have to load a library for it."""
    node = helper.make_node("Run", ["x"], ["y"], domain="com.example")
    found = inspect(onnx_model([node], [], ("com.example",)))

    assert (found.safety.verdict, codes(found)) == (Verdict.SUSPICIOUS, {"onnx-custom-operator"})


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe would wait for ever, a device has no end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path / "none", tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(DataRefusedError) as caught:
            passport(path)
        assert caught.value.reason is Reason.FILE_UNREADABLE


def test_evidence_is_bounded_and_the_worst_stays(inspect: Inspect) -> None:
    """A thousand unknown names and one dangerous one: the passport stays small, and unsafe."""
    names = b"".join(b"cmodule%d\nname\n0" % index for index in range(1000))
    found = inspect(b"\x80\x02" + names + b"cos\nsystem\n0" + names.replace(b"module", b"package") + b"N.")

    assert found.safety.verdict is Verdict.UNSAFE
    assert len(found.safety.findings) == 32
    assert to_proto(found).ByteSize() < 16_384


def test_texts_of_the_file_are_shown_on_one_line(inspect: Inspect) -> None:
    """Control characters could draw over what a terminal shows."""
    found = inspect(b"\x80\x02cmod\x1b[2Jule\n" + b"n" * 1000 + b"\n.")

    assert all(finding.detail.isprintable() and len(finding.detail) <= 200 for finding in found.safety.findings)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_passport_survives_its_message(name: str) -> None:
    """What is stored with a model is what was written."""
    found = passport(MODELS / name)

    assert from_proto(to_proto(found)) == found
