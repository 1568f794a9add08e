"""Keras: .keras archives and HDF5 files. The configuration is a program in JSON: layers by name, with code in some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from hivefold.models.passport import hdf5
from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.jsontext import parsed, parsed_text
from hivefold.models.passport.source import Source
from hivefold.models.passport.zipped import Archive
from hivefold.models.wire import MalformedError

_MODULES: Final = re.compile(
    r"(tf_)?keras(\.src)?(\.(layers|initializers|regularizers|constraints|models|losses|metrics|optimizers|activations|"
    r"dtype_policies|applications|engine|distribution)(\.[a-z_0-9.]+)?)?"
)
"""Modules of Keras whose classes do what their configuration says, and nothing else."""
_CODE: Final = {
    "Lambda": "holds Python code",
    "__lambda__": "holds Python code",
    "TorchModuleWrapper": "holds a pickled PyTorch module",
    "TFSMLayer": "loads another model from a path",
    "FlaxLayer": "holds Python code",
    "JaxLayer": "holds Python code",
}
_SYSTEM: Final = frozenset(
    {"builtins", "os", "sys", "subprocess", "importlib", "pickle", "shutil", "runpy", "posix", "ctypes", "socket"}
)
_FUNCTIONS: Final = frozenset({"function", "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})
_LEFT_OUT: Final = re.compile(r"(^|/)(optimizer(_weights)?|seed_generator\w*|metrics|_metrics)(/|$)")
_BUFFERS: Final = re.compile(r"moving_(mean|variance)|/normalization\w*/")
_TEXTS: Final = frozenset({"keras_version", "model_config", "training_config", "layer_names"})
_DEPTH: Final = 64


def looks(archive: Archive) -> bool:
    """Whether a zip archive is one that Keras writes."""
    return "config.json" in archive.entries and (
        "metadata.json" in archive.entries or bool(archive.named(".weights.h5"))
    )


def inspect_archive(archive: Archive, draft: Draft) -> None:
    """A .keras file. Raises MalformedError."""
    draft.format, draft.framework = "keras", "keras"
    # The configuration first: a loader reads nothing else to find the code, and nothing else may hide it.
    describe(parsed(archive.open(archive.entries["config.json"])), draft)
    if "metadata.json" in archive.entries:
        version = parsed(archive.open(archive.entries["metadata.json"])).get("keras_version")
        draft.format_version = f"Keras {version}" if isinstance(version, str) else ""
    for entry in archive.entries.values():
        draft.budget.spend()
        if entry.name.endswith(".h5"):
            _weights(hdf5.read(archive.open(entry), draft), draft)
        elif entry.name not in {"config.json", "metadata.json"} and not entry.folder:
            draft.uncovered(f"{entry.name} is not looked at")


def inspect_hdf5(source: Source, draft: Draft) -> None:
    """An HDF5 file: Keras' older format where it holds a model's configuration. Raises MalformedError."""
    draft.format = "hdf5"
    tree = hdf5.read(source, draft, _TEXTS)
    if tree.texts.keys() - {"training_config"}:
        draft.format, draft.framework = "keras-h5", "keras"
        draft.format_version = f"Keras {tree.texts.get('keras_version', '')}".strip()
    for name in ("model_config", "training_config"):
        if name in tree.texts:
            config = parsed_text(tree.texts[name], name)
            describe(config, draft) if name == "model_config" else _judge(config, draft)
    _weights(tree, draft)


def describe(config: dict[str, Any], draft: Draft) -> None:
    """Architecture, inputs, outputs and evidence from a model's configuration."""
    _judge(config, draft)
    inner = config.get("config")
    body = inner if isinstance(inner, dict) else {}
    draft.architecture_name = str(body.get("name") or config.get("class_name") or "")
    layers = list(_layers(body, 0))
    for layer in layers:
        name = str(layer.get("class_name"))
        draft.operators[name] = draft.operators.get(name, 0) + 1
        if name == "InputLayer":
            _input(layer.get("config"), draft)
    _output(layers, draft)
    _activations(layers, draft)


def _judge(config: object, draft: Draft, depth: int = 0) -> None:
    """Every object that the configuration names must be one of Keras' own."""
    if depth > _DEPTH:
        raise MalformedError("the configuration is nested too deep")
    draft.budget.spend()
    if isinstance(config, list):
        for item in config:
            _judge(item, draft, depth + 1)
    if not isinstance(config, dict):
        return
    name, module = config.get("class_name"), config.get("module")
    if isinstance(name, str):
        if name in _CODE:
            draft.unsafe("keras-code", name, f"the layer {name} {_CODE[name]}")
        elif module is not None and not (isinstance(module, str) and _MODULES.fullmatch(module)):
            _foreign(name, str(module), draft)
        elif name in _FUNCTIONS or (module is not None and not name[:1].isupper()):
            draft.suspicious("keras-function", name, "names a function that is called when the model is loaded or used")
        elif ">" in name:
            draft.suspicious("keras-custom", name, "is not one of Keras' own classes: its code is imported")
    for item in config.values():
        _judge(item, draft, depth + 1)


def _foreign(name: str, module: str, draft: Draft) -> None:
    text, top = f"imports {name} from {module}", module.partition(".")[0]
    if top in {"keras", "tf_keras"} or (module == "builtins" and name in {"dict", "list", "tuple", "set"}):
        draft.suspicious("keras-foreign", name, f"{text}, which is no layer")
    elif top in _SYSTEM:
        draft.unsafe("keras-foreign", name, text)
    else:
        draft.suspicious("keras-foreign", name, f"{text}: its code is run")


def _layers(body: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """The layers of a model, with those of models in it."""
    given = body.get("layers")
    for layer in given if isinstance(given, list) and depth < 8 else []:
        if isinstance(layer, dict):
            yield layer
            inner = layer.get("config")
            if isinstance(inner, dict):
                yield from _layers(inner, depth + 1)


def _input(config: object, draft: Draft) -> None:
    if isinstance(config, dict):
        shape = _shape(config.get("batch_shape") or config.get("batch_input_shape"))
        name = str(config.get("name") or "input")
        if shape and all(port.name != name for port in draft.inputs):
            draft.add_port(draft.inputs, name, _type(config.get("dtype")), shape)


def _output(layers: list[dict[str, Any]], draft: Draft) -> None:
    """The last layer's units, where it has any."""
    last = layers[-1].get("config") if layers else None
    if isinstance(last, dict) and type(last.get("units")) is int:
        name = str(last.get("name") or "output")
        draft.add_port(draft.outputs, name, _type(last.get("dtype")), (-1, last["units"]))


def _activations(layers: list[dict[str, Any]], draft: Draft) -> None:
    """The largest two neighbouring inputs of layers, which Keras notes: one is read while the other is written."""
    sizes = []
    for layer in layers:
        build = layer.get("build_config")
        shape = _shape(build.get("input_shape")) if isinstance(build, dict) else ()
        elements = 1
        for size in shape:
            elements *= draft.batch_rows if size < 0 else size
        sizes.append(elements * 4 if shape else 0)
    draft.activation_bytes = max((first + second for first, second in pairwise([*sizes, 0])), default=0) or None


def _shape(given: object) -> tuple[int, ...]:
    if not isinstance(given, list) or len(given) > 32:
        return ()
    return tuple(size if type(size) is int and 0 <= size < 1 << 40 else -1 for size in given)


def _type(given: object) -> str:
    name = (
        given.get("config", {}).get("name")
        if isinstance(given, dict) and isinstance(given.get("config"), dict)
        else given
    )
    found = re.fullmatch(r"(mixed_)?(b?float|u?int)(\d+)", name) if isinstance(name, str) else None
    if found is None:
        return "FP32"
    prefix = {"float": "FP", "bfloat": "BF", "int": "INT", "uint": "UINT"}[found[2]]
    return f"{prefix}{found[3]}"


def _weights(tree: hdf5.Tree, draft: Draft) -> None:
    for dataset in tree.datasets:
        if _LEFT_OUT.search(dataset.path) or dataset.data_type in {"text", "vlen", ""}:
            continue
        trained = not _BUFFERS.search(dataset.path) and not _is_running_mean(dataset.path)
        draft.weights.append(
            Weight(dataset.path, dataset.data_type, dataset.shape, dataset.size_bytes, trained=trained)
        )


def _is_running_mean(path: str) -> bool:
    """In .weights.h5 variables have numbers: a batch normalization's third and fourth are its running means."""
    return re.search(r"batch_normalization\w*/vars/[23]$", path) is not None
