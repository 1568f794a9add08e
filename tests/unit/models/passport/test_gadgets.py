"""Pickles that run code, in the forms in which they were found in the wild or bypassed scanners: none is ever safe."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hivefold.models.passport.facts import Verdict
from hivefold.models.passport.inspection import passport


class Runs:
    """Pickled, it calls a function."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.module, self.name, self.arguments = module, name, arguments


def text(value: str) -> bytes:
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data if len(data) < 256 else b"X" + struct.pack("<I", len(data)) + data


def argument(value: object) -> bytes:
    match value:
        case str():
            return text(value)
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case _:
            raise TypeError(value)


def call(module: str, name: str, *arguments: object, proto: int = 4) -> bytes:
    """`module.name(*arguments)` as opcodes, the name on the stack."""
    return text(module) + text(name) + b"\x93" + b"(" + b"".join(map(argument, arguments)) + b"tR"


def whole(body: bytes, proto: int = 4) -> bytes:
    return b"\x80" + bytes([proto]) + body + b"."


def old(module: str, name: str, *arguments: str) -> bytes:
    """The same in protocol 0, which has no header."""
    given = b"".join(b"V" + value.encode() + b"\n" for value in arguments)
    return f"c{module}\n{name}\n".encode() + b"(" + given + b"tR."


CALLS = {
    "os.system": ("os", "system", "id"),
    "posix.system": ("posix", "system", "id"),
    "nt.system": ("nt", "system", "id"),
    "os.popen": ("os", "popen", "id"),
    "os.execl": ("os", "execl", "/bin/sh", "sh"),
    "subprocess.Popen": ("subprocess", "Popen", "id"),
    "subprocess.check_output": ("subprocess", "check_output", "id"),
    "builtins.eval": ("builtins", "eval", "1"),
    "builtins.exec": ("builtins", "exec", "1"),
    "builtins.compile": ("builtins", "compile", "1", "f", "exec"),
    "builtins.__import__": ("builtins", "__import__", "os"),
    "builtins.getattr": ("builtins", "getattr", "x", "y"),
    "builtins.open": ("builtins", "open", "/etc/passwd"),
    "builtins.breakpoint": ("builtins", "breakpoint"),
    "__builtin__.eval": ("__builtin__", "eval", "1"),
    "runpy": ("runpy", "_run_code", "1"),
    "runpy.run_path": ("runpy", "run_path", "/tmp/x.py"),
    "importlib": ("importlib", "import_module", "evil"),
    "pty.spawn": ("pty", "spawn", "/bin/sh"),
    "timeit": ("timeit", "timeit", "1"),
    "pdb.run": ("pdb", "run", "1"),
    "bdb.Bdb.run": ("bdb", "Bdb.run", "1"),
    "cProfile.run": ("cProfile", "run", "1"),
    "code": ("code", "InteractiveInterpreter.runcode", "1"),
    "pip": ("pip", "main", "install"),
    "pip._internal": ("pip._internal.cli.main", "main", "install"),
    "webbrowser": ("webbrowser", "open", "http://example.invalid"),
    "shutil.rmtree": ("shutil", "rmtree", "/tmp/nothing"),
    "socket": ("socket", "create_connection", "example.invalid"),
    "urllib": ("urllib.request", "urlopen", "http://example.invalid"),
    "requests": ("requests.api", "get", "http://example.invalid"),
    "ctypes": ("ctypes", "CDLL", "libc.so.6"),
    "marshal": ("marshal", "loads", b"x"),
    "types.CodeType": ("types", "CodeType", 0),
    "types.FunctionType": ("types", "FunctionType", 0),
    "pickle.loads": ("pickle", "loads", b"\x80\x04N."),
    "_pickle.loads": ("_pickle", "loads", b"\x80\x04N."),
    "dill": ("dill", "loads", b"x"),
    "cloudpickle": ("cloudpickle.cloudpickle", "_make_function", "x"),
    "joblib.load": ("joblib", "load", "/tmp/x"),
    "operator.methodcaller": ("operator", "methodcaller", "system"),
    "operator.attrgetter": ("operator", "attrgetter", "system"),
    "functools.partial": ("functools", "partial", "x"),
    "functools.reduce": ("functools", "reduce", "x"),
    "copyreg.__reduce_ex__": ("copyreg", "__reduce_ex__", "x", 2),
    "copyreg.add_extension": ("copyreg", "add_extension", "os", "system", 1),
    "sys.setattr": ("sys", "settrace", "x"),
    "logging.config": ("logging.config", "fileConfig", "/tmp/x"),
    "asyncio": ("asyncio.unix_events", "_UnixSubprocessTransport._start", "id"),
    "multiprocessing": ("multiprocessing.util", "spawnv_passfds", "x"),
    "distutils": ("distutils.file_util", "write_file", "/tmp/x"),
    "lib2to3": ("lib2to3.pgen2.grammar", "Grammar.loads", b"x"),
    "idlelib": ("idlelib.run", "Executive.runcode", "1"),
    "doctest": ("doctest", "debug_script", "1"),
    "ensurepip": ("ensurepip._uninstall", "main", "x"),
    "numpy.load": ("numpy", "load", "/tmp/x"),
    "numpy runstring": ("numpy.testing._private.utils", "runstring", "1", "x"),
    "numpy f2py": ("numpy.f2py.crackfortran", "getlincoef", "1", "x"),
    "numpy param_eval": ("numpy.f2py.crackfortran", "param_eval", "1", "x"),
    "numpy ufunc": ("numpy.core", "_ufunc_reconstruct", "os", "system"),
    "torch.load": ("torch", "load", "/tmp/x"),
    "torch.hub": ("torch.hub", "load", "x"),
    "torch bytes": ("torch.storage", "_load_from_bytes", b"x"),
    "torch library": ("torch.ops", "load_library", "x"),
    "torch execWrapper": ("torch.jit.unsupported_tensor_ops", "execWrapper", "1", "x", "y"),
    "torch run_cprofile": ("torch.utils.bottleneck.__main__", "run_cprofile", "1", "x"),
    "torch ShapeEnv": ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", "1"),
    "torch inductor": ("torch._inductor.codecache", "compile_file", "x"),
    "torch collect_env": ("torch.utils.collect_env", "run", "id"),
    "torch load_config": ("torch.utils._config_module", "ConfigModule.load_config", b"x"),
    "torch type_v2": ("torch._tensor", "_rebuild_from_type_v2", "x"),
    "sklearn FunctionTransformer": ("sklearn.preprocessing._function_transformer", "FunctionTransformer", "x"),
    "sklearn load": ("sklearn.datasets._base", "load_files", "/tmp"),
    "pandas": ("pandas.io.pickle", "read_pickle", "/tmp/x"),
    "keras": ("keras.models", "load_model", "/tmp/x"),
    "tensorflow": ("tensorflow.python.ops.script_ops", "eager_py_func", "x"),
    "unknown package": ("evil_package", "run", "x"),
    "own class": ("__main__", "Model"),
    "str.format": ("builtins", "str.format", "x"),
    "dotted escape": ("collections", "OrderedDict.__init__.__globals__", "x"),
    "dotted system": ("collections", "_sys.modules", "x"),
    "decimal bomb": ("fractions", "Fraction", "1e999999999"),
}


@pytest.fixture
def verdict(tmp_path: Path) -> Callable[[bytes], Verdict]:
    def judged(content: bytes) -> Verdict:
        path = tmp_path / "m.pkl"
        path.write_bytes(content)
        return passport(path).safety.verdict

    return judged


Judged = Callable[[bytes], Verdict]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("proto", [2, 3, 4, 5])
def test_a_dangerous_call_is_never_safe(verdict: Judged, name: str, proto: int) -> None:
    """Whatever the protocol that the file claims."""
    module, function, *arguments = CALLS[name]
    assert verdict(whole(call(str(module), str(function), *arguments), proto)) in {Verdict.UNSAFE, Verdict.SUSPICIOUS}


@pytest.mark.parametrize("name", [name for name, given in CALLS.items() if all(type(part) is str for part in given)])
def test_nor_is_it_in_the_oldest_protocol(verdict: Judged, name: str) -> None:
    """Protocol 0 is text and has no header."""
    assert verdict(old(*map(str, CALLS[name]))) in {Verdict.UNSAFE, Verdict.SUSPICIOUS}


KNOWN = {"os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "builtins.getattr", "torch.load", "runpy"}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_what_surely_runs_code_is_unsafe(verdict: Judged, name: str) -> None:
    """Not only unknown."""
    module, function, *arguments = CALLS[name]
    assert verdict(whole(call(str(module), str(function), *arguments))) is Verdict.UNSAFE


SYSTEM = call("os", "system", "id")
FORMS = {
    "memoised parts": text("os") + b"\x940" + text("system") + b"\x940" + b"h\x00h\x01\x93" + b"(" + text("id") + b"tR",
    "put and get": text("system") + b"q\x05" + b"0" + text("os") + b"h\x05" + b"\x93(" + text("id") + b"tR",
    "name from a tuple": text("os") + text("system") + b"\x86" + b"0" + SYSTEM,
    "in a list": b"](" + SYSTEM + b"e",
    "popped": SYSTEM + b"0N",
    "popped with a mark": b"(" + SYSTEM + b"1N",
    "under a harmless value": SYSTEM + b"K\x01\x86",
    "INST": b"(" + text("id") + b"ios\nsystem\n",
    "OBJ": b"(cos\nsystem\n" + text("id") + b"o",
    "NEWOBJ": b"cos\nsystem\n" + text("id") + b"\x85\x81",
    "NEWOBJ_EX": b"cos\nsystem\n" + text("id") + b"\x85}\x92",
    "imported only": b"cos\nsystem\n",
    "as state": b"ccollections\nOrderedDict\n)R}" + text("x") + b"cos\nsystem\nsb",
    "as __setstate__": b"ccollections\nOrderedDict\n)R}"
    + text("__setstate__")
    + b"cos\nsystem\nsb"
    + text("id")
    + b"b",
    "build on a class": b"ccollections\nOrderedDict\n}" + text("x") + text("y") + b"sb",
    "append to a class": b"ccollections\nOrderedDict\n" + text("x") + b"a",
    "entries of a class": b"ccollections\nOrderedDict\n" + text("x") + text("y") + b"s",
    "call of a call": b"ccollections\nOrderedDict\n)R)R",
    "call of a text": text("os.system") + b")R",
    "call of a number": b"K\x01)R",
    "call from the memo": b"cos\nsystem\n\x940h\x00(" + text("id") + b"tR",
    "duplicated": b"cos\nsystem\n2(" + text("id") + b"tR",
    "extension 1": b"\x82\x01)R",
    "extension 2": b"\x83\x01\x00)R",
    "extension 4": b"\x84\x01\x00\x00\x00)R",
    "persistent": text("id") + b"Q",
    "persistent text": b"Pid\n",
    "computed name": b"K\x01" + text("system") + b"\x93",
    "name as bytes": b"C\x02os" + text("system") + b"\x93)R",
    "unread buffer": b"\x97",
    "escaped name": b"S'os'\nS'\\x73ystem'\n\x93(" + text("id") + b"tR",
    "unicode name": b"Vos\nV\\u0073ystem\n\x93(" + text("id") + b"tR",
    "quoted badly": b"S'os\nS\"system'\n\x93(" + text("id") + b"tR",
    "framed": b"\x95" + struct.pack("<Q", len(SYSTEM)) + SYSTEM,
    "framed wrongly": b"\x95" + struct.pack("<Q", 1 << 40) + SYSTEM,
    "protocol twice": b"\x80\x05\x80\x00" + SYSTEM,
    "reconstructor": b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR",
    "codec": b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R",
    "array of a foreign class": b"cnumpy.core.multiarray\n_reconstruct\n(c__main__\nX\nK\x00\x85C\x01btR",
    "huge array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85C\x01btR",
    "huge bytes": b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    "huge list": b"c__builtin__\nlist\nc__builtin__\nrange\nJ\xff\xff\xff\x7f\x85R\x85R",
    "huge storage": b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R",
    "huge through a reconstructor": b"ccopyreg\n_reconstructor\n(c__builtin__\nbytearray\n2J\xff\xff\xff\x7ftR",
    "huge module": b"ctorch.nn.modules.linear\nLinear\nJ\xff\xff\xff\x00J\xff\xff\xff\x00\x86R",
    "reducer calls": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNNNtR",
}


@pytest.mark.parametrize("name", FORMS)
def test_no_form_hides_it(verdict: Judged, name: str) -> None:
    """However the import or the call is spelled, and wherever it lies."""
    assert verdict(whole(FORMS[name])) in {Verdict.UNSAFE, Verdict.SUSPICIOUS}


@pytest.mark.parametrize("tail", [b"", b"\xff", b"R", b"\x8c\xff", b"0" * 9, b"cos", b"(((", b"\x8b\xff\xff\xff\x7f"])
def test_a_broken_tail_does_not_hide_what_came_before(verdict: Judged, tail: bytes) -> None:
    """An unpickler has called it by the time it fails: the file may never end well."""
    assert verdict(b"\x80\x04" + SYSTEM + tail) is Verdict.UNSAFE


def test_a_harmless_pickle_without_an_end_is_not_safe(verdict: Judged) -> None:
    """What does not read to its end is unknown."""
    data = pickle.dumps({"a": [1, 2.5, None, True, b"x", (1, "y")]})
    assert verdict(data) is Verdict.SAFE
    assert {verdict(data[:size]) for size in range(2, len(data))} <= {Verdict.UNKNOWN}


def test_what_follows_the_first_pickle_is_looked_at(verdict: Judged) -> None:
    """Loaders read several pickles from one file."""
    assert verdict(pickle.dumps(1) + whole(SYSTEM)) is Verdict.UNSAFE


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["a/data.pkl", "a/constants.pkl", "a/other.bin", "data.pkl", "a/.data/x"])
def test_every_pickle_of_an_archive_is_looked_at(verdict: Judged, name: str, method: int) -> None:
    """Whatever it is called."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("a/version", "3")
        if not name.endswith("data.pkl"):
            archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr(name, whole(SYSTEM))
    assert verdict(made.getvalue()) is Verdict.UNSAFE


def archive(*entries: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as written:
        for name, data in entries:
            written.writestr(name, data)
    return made.getvalue()


SAFE_ARCHIVE = archive(("a/data.pkl", pickle.dumps({}, 2)), ("a/version", b"3"))


def flagged(data: bytes) -> bytes:
    """The same archive with all entries marked as encrypted, which makes zipfile refuse and PyTorch not."""
    return data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")


TRICKS = {
    "encrypted mark": flagged(SAFE_ARCHIVE),
    "other local name": SAFE_ARCHIVE.replace(b"a/data.pkl", b"a/dota.pkl", 1),
    "bytes behind": SAFE_ARCHIVE + b"x" * 10,
    "another archive behind": SAFE_ARCHIVE + archive(("a/data.pkl", whole(SYSTEM))),
    "pickle before": whole(b"N") + SAFE_ARCHIVE,
    "two directories": SAFE_ARCHIVE[:-6] + struct.pack("<I", 0) + SAFE_ARCHIVE[-2:],
    "a custom object": archive(("a/data.pkl", pickle.dumps({}, 2)), ("a/data/constants/custom_obj_0", b"x")),
    "an archive among the weights": archive(
        ("a/data.pkl", pickle.dumps({}, 2)), ("a/data/0", archive(("b/data.pkl", whole(SYSTEM))))
    ),
    "native code": archive(("a/data.pkl", pickle.dumps({}, 2)), ("a/x.so", b"\x7fELF")),
    "outside": archive(("a/data.pkl", pickle.dumps({}, 2)), ("../../x", b"1")),
    "nested": archive(("a/data.pkl", pickle.dumps({}, 2)), ("a/x.pt", archive(("b/data.pkl", whole(SYSTEM))))),
}


def test_the_archive_itself_would_be_safe(verdict: Judged) -> None:
    """So that the tricks below are what makes the difference."""
    assert verdict(SAFE_ARCHIVE) is Verdict.SAFE


@pytest.mark.parametrize("name", TRICKS)
def test_archives_that_loaders_read_differently_are_not_safe(verdict: Judged, name: str) -> None:
    """A scanner and a loader must not see two different files."""
    assert verdict(TRICKS[name]) is not Verdict.SAFE


WRAPPER = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81"
SPELLED = b"S'joblib.numpy_pickle'\nS'NumpyArrayWr\\x61pper'\n\x93)\x81"


def described(kind: bytes, *, slots: bytes = b"") -> bytes:
    """The state of a wrapper around 64 elements, and BUILD."""
    state = b"}(" + text("shape") + b"K\x40\x85" + text("dtype") + b"cnumpy\ndtype\n" + kind + b"\x89\x88\x87Ru"
    return state + (slots + b"\x86" if slots else b"") + b"b"


def swallowed(size: int) -> bytes:
    """Raw bytes that read as one byte string with what follows them, so that opcodes behind them seem to be data."""
    return (b"C" + bytes([size])).ljust(64, b"N")


@pytest.mark.parametrize("wrapper", [WRAPPER, SPELLED])
def test_a_pickle_that_only_joblib_sees_is_found(verdict: Judged, wrapper: bytes) -> None:
    """pickle.load takes the call for a text, joblib skips what hides it; names may be spelled with escapes."""
    body = wrapper + described(text("u1")) + swallowed(62 + len(SYSTEM) + 1) + SYSTEM + b"0"
    assert verdict(b"\x80\x04" + body + b".") is Verdict.UNSAFE


FIELDS = b"\x89\x88\x87R(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x01tb"
ODD_TYPES = {
    "objects in a type of bytes": text("V1") + FIELDS,
    "a number that holds objects": text("u1") + FIELDS,
    "a size of its own": text("u1") + FIELDS.replace(b"J\xff\xff\xff\xff", b"J\x07\x00\x00\x00", 1),
    "a state that cannot be told": text("u1") + b"\x89\x88\x87Rcnumpy\nfloat64\n)Rb",
}


@pytest.mark.parametrize("name", ODD_TYPES)
def test_an_array_whose_length_is_disputed_is_not_safe(verdict: Judged, name: str) -> None:
    """Where raw bytes end depends on the element type: it must not contradict itself."""
    state = b"}(" + text("shape") + b"K\x40\x85" + text("dtype") + b"cnumpy\ndtype\n" + ODD_TYPES[name] + b"u"
    assert verdict(b"\x80\x04" + WRAPPER + state + b"b" + swallowed(62) + b".") is not Verdict.SAFE


def test_slots_do_not_change_an_arrays_shape_unseen(verdict: Judged) -> None:
    """BUILD takes attributes in two dictionaries: the second wins."""
    slots = b"}" + text("shape") + b"K\x01\x85s"
    assert verdict(b"\x80\x04" + WRAPPER + described(text("u1"), slots=slots) + bytes(64) + b".") is not Verdict.SAFE


def test_a_pickle_that_hides_behind_an_array_is_found(verdict: Judged) -> None:
    """joblib takes the bytes behind an array's wrapper for numbers, pickle.load for opcodes: both are read."""
    wrapper = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}("
    state = text("shape") + b"K\x40\x85" + text("dtype") + b"cnumpy\ndtype\n" + text("u1") + b"\x89\x88\x87R"
    hidden = (SYSTEM + b".").ljust(64, b"\0")
    assert verdict(b"\x80\x04" + wrapper + state + b"ub" + hidden + b".") is Verdict.UNSAFE
    assert verdict(b"\x80\x04" + wrapper + state + b"ub" + bytes(64) + b".") is Verdict.SAFE
