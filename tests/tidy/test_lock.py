"""Two lock files, one truth: uv.lock, and requirements.lock for those who have no uv."""

from __future__ import annotations

import re
import tomllib

from tests.tidy.source import ROOT


def uv_packages() -> dict[tuple[str, str], set[str]]:
    """(name, version) of every locked package with the hashes of its files."""
    locked = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages = {}
    for package in locked["package"]:
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        if files:
            packages[package["name"], package["version"]] = {file["hash"] for file in files}
    return packages


def pip_packages() -> dict[tuple[str, str], set[str]]:
    """The same, as pip will read it."""
    packages: dict[tuple[str, str], set[str]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text(encoding="utf-8")):
        name, version = re.match(r"([\w.-]+)==([\w.!+-]+)", entry).groups()  # type: ignore[union-attr]
        packages[name, version] = set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))
    return packages


def test_both_lock_files_name_the_same_packages() -> None:
    """pip installs the very files that uv installs: `make lock` brings requirements.lock up to date."""
    assert uv_packages() == pip_packages()
