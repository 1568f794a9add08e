"""Configurations and folders: names of layers, templates and code beside the weights are judged as well."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest

from hivefold.models.passport.facts import Passport, Verdict
from hivefold.models.passport.inspection import passport


def codes(found: Passport) -> set[str]:
    return {finding.code for finding in found.safety.findings}


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


WEIGHTS = text(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}') + bytes(4)


def keras(config: object) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3"}))
        archive.writestr("config.json", json.dumps(config))
    return made.getvalue()


def layer(name: str, module: str | None = "keras.layers", /, **config: object) -> dict[str, object]:
    made: dict[str, object] = {"class_name": name, "config": config}
    return made if module is None else {"module": module, **made}


LAYERS = {
    "Lambda": (layer("Lambda"), Verdict.UNSAFE),
    "a function of os": (layer("function", "os", name="system"), Verdict.UNSAFE),
    "a builtin": (layer("exec", "builtins"), Verdict.UNSAFE),
    "a pickled module": (layer("TorchModuleWrapper"), Verdict.UNSAFE),
    "another model": (layer("TFSMLayer", filepath="/tmp/x"), Verdict.UNSAFE),
    "a file from the net": (layer("function", "keras.utils", name="get_file"), Verdict.SUSPICIOUS),
    "an own class": (layer("Mine", "my_package.layers"), Verdict.SUSPICIOUS),
    "a registered class": (layer("Mine>Layer", None), Verdict.SUSPICIOUS),
    "one in another": (layer("TimeDistributed", layer=layer("Lambda")), Verdict.UNSAFE),
    "a Dense": (layer("Dense", units=3), Verdict.SAFE),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_configuration_of_a_keras_model_is_judged(tmp_path: Path, name: str) -> None:
    """It names classes and functions: those that are Keras' own layers are harmless, those with code are not."""
    given, verdict = LAYERS[name]
    config = {"class_name": "Sequential", "module": "keras", "config": {"name": "m", "layers": [given]}}

    path = tmp_path / "m"
    path.write_bytes(keras(config))
    assert passport(path).safety.verdict is verdict


def folder(tmp_path: Path, **files: object) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (made / name.replace("__", ".")).write_bytes(data)
    return made


def test_a_folder_with_code_is_suspicious(tmp_path: Path) -> None:
    """trust_remote_code runs it."""
    path = folder(tmp_path, config__json={"auto_map": {"AutoModel": "m.M"}}, m__py=b"1", model__safetensors=WEIGHTS)

    assert codes(passport(path)) == {"remote-code", "code-file"}


def test_a_chat_template_that_reaches_beyond_text_is_suspicious(tmp_path: Path) -> None:
    """A template is a program of its own."""
    attack = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    path = folder(tmp_path, config__json={}, tokenizer_config__json={"chat_template": attack})
    key = text(b"tokenizer.chat_template") + struct.pack("<I", 8) + text(attack.encode())
    (path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key)

    found = passport(path)
    assert {(finding.code, finding.verdict) for finding in found.safety.findings} == {
        ("chat-template", Verdict.SUSPICIOUS)
    }
    assert len(found.safety.findings) == 2


def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    """Neither to a file nor to a folder."""
    path = folder(tmp_path, config__json={})
    (path / "weights.bin").symlink_to("/etc/passwd")
    (path / "more").symlink_to("/etc")
    found = passport(path).safety.findings

    assert {(finding.code, finding.place) for finding in found} == {("link", "weights.bin"), ("link", "more")}


def test_a_link_to_itself_is_passed_over(tmp_path: Path) -> None:
    """It leads nowhere."""
    path = folder(tmp_path, config__json={}, model__safetensors=WEIGHTS)
    (path / "loop.bin").symlink_to("loop.bin")

    assert passport(path).safety.verdict is Verdict.SAFE


SYSTEM = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."


@pytest.mark.parametrize("name", ["pytorch_model.bin", "MODEL.PKL", "notes", "vocabulary.txt"])
@pytest.mark.parametrize("beside", ["config.json", "saved_model.pb", "README.md"])
def test_a_pickle_in_a_folder_is_judged_whatever_stands_beside_it(tmp_path: Path, name: str, beside: str) -> None:
    """And whatever its name is."""
    path = folder(tmp_path, **{name: SYSTEM, beside: {}})

    assert passport(path).safety.verdict is Verdict.UNSAFE


def test_shards_count_together_however_long_their_names_are(tmp_path: Path) -> None:
    """The same weights in another format count once."""
    shards = {f"{index}{'x' * 240}.safetensors": WEIGHTS for index in range(3)}
    found = passport(folder(tmp_path, config__json={}, **shards))

    assert (found.parameter_count, found.format) == (12, "hugging-face")
