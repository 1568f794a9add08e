"""Where values come from, and which of them wins."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hivefold.config.values import Parse
from hivefold.errors import ConfigError

SECRETS: Final = ("password", "token")
"""Keys that never come as a flag: everyone on a machine reads the arguments of its processes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Values by dotted key, and how to tell a person where one of them stands."""

    values: Mapping[str, object]
    where: Callable[[str], str]
    directory: Path = Path()
    """What relative paths in it are relative to."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value that was read, and its source."""

    value: object
    source: Source


class Settings:
    """Sources in the order of their precedence, read key by key."""

    def __init__(self, sources: Sequence[Source], schema: Mapping[str, Parse]) -> None:
        self._sources = sources
        self._schema = schema

    def find(self, *keys: str) -> Found | None:
        """The value of the first source that has one of `keys`, the earlier key first. Raises ConfigError."""
        for source in self._sources:
            for key in keys:
                if key in source.values:
                    return Found(self._read(source, key), source)
        return None

    def get(self, *keys: str, default: Any) -> Any:
        """As `find`, without the source."""
        found = self.find(*keys)
        return default if found is None else found.value

    def _read(self, source: Source, key: str) -> object:
        try:
            return self._schema[key](source.values[key])
        except ValueError as error:
            raise ConfigError(f"{source.where(key)} {error}") from None


def flag_source(flags: Mapping[str, object], schema: Iterable[str]) -> Source:
    """What the command line says; None stands for a flag that was not given."""
    given = {key: value for key, value in flags.items() if value is not None}

    def where(key: str) -> str:
        return f"--{key.replace('.', '-').replace('_', '-')}"

    for key in given:
        _require_known(key, schema, where)
        if key.rpartition(".")[2] in SECRETS:
            raise ConfigError(f"{where(key)} would show a secret to everyone on this machine; use {where(key)}-file")
    return Source(given, where)


def environment_source(environ: Mapping[str, str], prefix: str, schema: Iterable[str]) -> Source:
    """What variables with `prefix` say."""
    names = {prefix + key.upper().replace(".", "_"): key for key in schema}
    values = {}
    for variable, value in environ.items():
        if variable.startswith(prefix) and value:
            _require_known(variable, names, str)
            values[names[variable]] = value
    back = {key: variable for variable, key in names.items()}
    return Source(values, lambda key: back[key])


def file_source(path: Path, schema: Iterable[str]) -> Source:
    """What a TOML file says. With a secret in it the file must be its owner's alone."""
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
            private = not path.stat().st_mode & 0o077
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None

    def where(key: str) -> str:
        return f"{path}: {key}"

    known = set(schema)
    values = dict(_flat(tables, known))
    for key in values:
        _require_known(key, known, where)
        if key.rpartition(".")[2] in SECRETS and not private:
            raise ConfigError(f"{where(key)} is a secret and others may read the file; run `chmod 600 {path}`")
    return Source(values, where, path.absolute().parent)


def _flat(tables: Mapping[str, Any], known: set[str], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in tables.items():
        key = prefix + name
        if isinstance(value, dict) and key not in known:
            yield from _flat(value, known, f"{key}.")
        else:
            yield key, value


def _require_known(key: str, known: Iterable[str], where: Callable[[str], str]) -> None:
    known = list(known)
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        advice = f"did you mean {where(close[0])}?" if close else f"known are {', '.join(map(where, sorted(known)))}"
        raise ConfigError(f"{where(key)} is not a setting; {advice}")
