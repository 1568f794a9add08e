"""Files that mean nothing to a framework: their passport tells so, and nothing is raised."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from io import BytesIO

import pytest
from onnx import TensorProto, helper

from hivefold.models.passport.detect import inspect_source
from hivefold.models.passport.draft import Budget, Draft
from hivefold.models.passport.facts import Passport, Verdict
from hivefold.models.passport.inspection import finished
from hivefold.models.passport.messages import from_proto, to_proto
from hivefold.models.passport.source import of_bytes

SYSTEM = b"cos\nsystem\n(S'id'\ntR."
"""A pickle without a header that runs a program."""
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How PyTorch's older files begin."""


def inspected(content: bytes, budget: Budget | None = None) -> Passport:
    draft = Draft(budget or Budget())
    inspect_source(of_bytes("m", content), draft)
    return finished(draft, len(content))


def codes(found: Passport) -> set[str]:
    return {finding.code for finding in found.safety.findings}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def archive(*entries: tuple[str, bytes], packed: bool = False) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as opened:
        for name, content in entries:
            opened.writestr(name, content)
    return made.getvalue()


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def frozen_graph_with_an_open_size() -> bytes:
    sizes = field(2, b"\x08" + b"\xff" * 9 + b"\x01") + field(2, b"\x08\x05")
    value = field(8, b"\x08\x01" + field(2, sizes))
    return field(1, field(1, b"c") + field(2, b"Const") + field(5, field(1, b"value") + field(2, value)))


def exported_program_with_an_open_size() -> bytes:
    sizes = [{"as_int": -1}, {"as_int": 5}]
    parameter = {"parameter": {"arg": {"name": "p"}, "parameter_name": "w"}}
    graph = {"nodes": [], "tensor_values": {"p": {"dtype": 7, "sizes": sizes}}}
    module = {"graph": graph, "signature": {"input_specs": [parameter], "output_specs": []}}
    program = json.dumps({"graph_module": module}).encode()
    return archive(("m/archive_format", b"pt2"), ("m/models/model.json", program))


def onnx_that_unsqueezes_one_axis_twice() -> bytes:
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    axes = helper.make_tensor("a", TensorProto.INT64, [2], [0, 0])
    nodes = [helper.make_node("Unsqueeze", ["x", "a"], ["y"])]
    return bytes(helper.make_model(helper.make_graph(nodes, "g", [inputs], [outputs], [axes])).SerializeToString())


def zip_with_a_cut_extra_field() -> bytes:
    whole = bytearray(archive(("a/data.pkl", b"\x80\x02}.")))
    start = whole.rindex(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 16, 0)
    struct.pack_into("<H", whole, start + 30, len(extra))
    whole[start + 46 + len("a/data.pkl") : start + 46 + len("a/data.pkl")] = extra
    end = whole.rindex(b"PK\x05\x06")
    struct.pack_into("<I", whole, end + 12, end - start)
    return bytes(whole)


HUGE = b"\x8b" + struct.pack("<i", 3000) + b"\x01" * 3000
"""A number of 7,000 digits, which Python does not write as a text."""
ESTIMATOR = b"\x80\x02csklearn.svm._classes\nSVC\n)R"
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x03\x85cnumpy\ndtype\n"
    + text("f" + "9" * 5000)
    + b"\x85R\x89C\0tb"
)
ABSURD = {
    "PyTorch's protocol": LEGACY + b"\x80\x02" + HUGE + b"." + b"\x80\x02}." * 3,
    "an encoding that is a number": b"\x80\x02c_codecs\nencode\n" + text("a") + HUGE + b"\x86R.",
    "an encoding that is a deep list": b"\x80\x02c_codecs\nencode\n" + text("a") + b"]" * 3000 + b"a" * 2999 + b"\x86R.",  # noqa: E501
    "an estimator that is its own state": ESTIMATOR + b"2b.",
    "a type of a thousand digits": ESTIMATOR + b"}" + text("coef_") + ARRAY + b"sb.",
    "parameters of parameters": LEGACY + b"\x80\x02}." * 2 + b"\x80\x02ctorch._utils\n_rebuild_parameter\nq\0"
    + b"h\0" * 3000 + b"N" + b"\x85R" * 3000 + b"." + b"\x80\x02].",
    "an open size in a frozen graph": frozen_graph_with_an_open_size(),
    "an open size in an exported program": exported_program_with_an_open_size(),
    "one axis twice": onnx_that_unsqueezes_one_axis_twice(),
    "a cut extra field": zip_with_a_cut_extra_field(),
    "a Keras model without layers": archive(("metadata.json", b"{}"), ("config.json", b'{"class_name":"Functional"}')),
}  # fmt: skip


@pytest.mark.parametrize("name", ABSURD)
def test_what_is_absurd_gives_a_passport(name: str) -> None:
    """With numbers that its message can hold."""
    found = inspected(ABSURD[name])

    assert from_proto(to_proto(found)) == found


def test_a_value_is_never_written_out_to_judge_it() -> None:
    """Forty pairs of the one before, twice, where a text belongs: 2**40 leaves for whoever writes them out."""
    found = inspected(b"\x80\x02c_codecs\nencode\n" + text("a") + b")" + b"2\x86" * 40 + b"\x86R.")

    assert codes(found) == {"pickle-odd-arguments"}


def test_names_of_nested_things_do_not_add_up() -> None:
    """A key of 60 KB, a thousand times in itself, would be a name of 60 MB."""
    key = text("k" * 60_000) + b"q\0"
    nested = key + b"0}" + b"h\0}" * 1000 + b"s" * 1000
    storage = b"((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ"
    leaf = b"h\0ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"K\0K\x01\x85K\x01\x85\x89NtR"
    state = b"\x80\x02" + nested[: -len(b"s" * 1000)] + leaf + b"s" * 1001 + b"."
    draft = Draft()
    inspect_source(of_bytes("m", LEGACY + b"\x80\x02}." * 2 + state + b"\x80\x02]."), draft)

    assert [len(weight.name) for weight in draft.weights] == [1000]


def test_entries_that_share_their_bytes_are_not_unpacked() -> None:
    """A thousand names for one part of a thousand zeros cost no more than one."""
    whole = archive(("a.pkl", bytes(1000)), packed=True)
    start, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    directory = b"".join(whole[start:end].replace(b"a.pkl", b"%05d" % index) for index in range(1000))
    count = struct.pack("<HHII", 1000, 1000, len(directory), start)
    found = inspected(whole[:start] + directory + b"PK\x05\x06\0\0\0\0" + count + b"\0\0", Budget(unpacked_bytes=0))

    assert "zip-overlap" in codes(found)
    assert "more bytes" not in str(found.safety)


def test_all_parts_together_are_unpacked_to_a_bound() -> None:
    """Each of a hundred entries is small: together they are not."""
    entries = [(f"{index}.pkl", bytes(1000)) for index in range(100)]
    found = inspected(archive(*entries, packed=True), Budget(unpacked_bytes=50_000))

    assert found.safety.verdict is Verdict.UNKNOWN
    assert "more bytes together" in str(found.safety)


def test_bytes_behind_what_is_packed_are_told() -> None:
    """A loader that reads on sees another file."""
    assert inspected(zlib.compress(b"\x80\x02}.")).safety.verdict is Verdict.SAFE
    assert "bytes behind" in inspected(zlib.compress(b"\x80\x02}.") + b"more").safety.coverage[0]


def safetensors_that_is_a_pickle() -> bytes:
    """Its size reads as a byte string, the name of its tensor as texts, and its data as a program."""
    size = 0x42 | 0x10 << 8
    name = "x" * 11 + ("U~" + "x" * 126) * 31 + "U<" + "x" * 60 + "U~"
    rest = '":{"dtype":"U8","shape":[200],"data_offsets":[0,200]}}'
    header = '{"' + name.ljust(size - 2 - len(rest), "x") + rest
    return struct.pack("<Q", size) + header.encode() + (bytes(9) + SYSTEM).ljust(200, b"\0")


HIDDEN = {
    "as safetensors": safetensors_that_is_a_pickle(),
    "as ONNX": b"B\0\0\0\0" + b"0" + SYSTEM,
    "behind metadata of Keras that do not read": archive(
        ("metadata.json", b"x"), ("config.json", b'{"class_name":"Lambda","config":{}}')
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_runs_code_is_found_whatever_stands_before_it(name: str) -> None:
    """Something that does not read must not hide the rest."""
    assert inspected(HIDDEN[name]).safety.verdict is Verdict.UNSAFE


def test_an_entry_that_does_not_unpack_hides_no_other() -> None:
    """The archive's version is packed in a way that is not read; nobody who runs the pickle reads it."""
    whole = bytearray(archive(("a/data.pkl", SYSTEM), ("a/zversion", b"1")))
    struct.pack_into("<H", whole, whole.index(b"a/zversion") - 30 + 8, 12)
    struct.pack_into("<H", whole, whole.rindex(b"a/zversion") - 46 + 10, 12)

    assert inspected(bytes(whole)).safety.verdict is Verdict.UNSAFE


NOWHERE = (1 << 64) - 1


def hdf5(*messages: tuple[int, bytes]) -> bytes:
    """A file whose root is one object with the given messages in its header."""
    said = b"".join(bytes([kind]) + struct.pack("<HB", len(content), 0) + content for kind, content in messages)
    begin = b"\x89HDF\r\n\x1a\n\x02\x08\x08\0" + struct.pack("<QQQQ", 0, NOWHERE, NOWHERE, 48) + bytes(4)
    return begin + b"OHDR\x02\x02" + struct.pack("<I", len(said)) + said + bytes(100)


def test_a_data_set_that_is_put_together_from_other_files_is_unsafe() -> None:
    """Reading a virtual data set opens the files that it names."""
    virtual = b"\x04\x03" + struct.pack("<QI", 0, 1)
    stored = b"\x04\x02" + bytes(20)

    assert codes(inspected(hdf5((0x08, virtual)))) == {"hdf5-external"}
    assert codes(inspected(hdf5((0x08, stored)))) == set()


def test_only_texts_that_are_asked_for_are_read() -> None:
    """A thousand attributes may name one text of megabytes; of Keras' own only the last counts."""
    name, kind, space = b"noise\0", b"\x13\0\0\0" + struct.pack("<I", 1 << 20), b"\x02\0\0\0"
    attribute = b"\x03\0" + struct.pack("<HHH", len(name), len(kind), len(space)) + b"\0" + name + kind + space
    found = inspected(hdf5(*[(0x0C, attribute)] * 100) + bytes(2 << 20), Budget(unpacked_bytes=1 << 20))

    assert (found.format, found.safety.findings) == ("hdf5", ())
