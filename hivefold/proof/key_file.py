"""The file with the fleet's signing key: PKCS #8 in PEM, for its owner only."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from hivefold.durable_file import sync_directory
from hivefold.entropy import Entropy
from hivefold.errors import ConfigError
from hivefold.limits import SECRET_BYTES
from hivefold.proof.keys import SEED_BYTES, Signer
from hivefold.server.private import make_directory, write_private


class KeyFile:
    """The signing key at `path`, and beside it the one that a rotation is about to record (PATH.next).

    All coordinators of a fleet hold the same key: on one host through one path, on several by a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = path.with_name(f"{path.name}.next")

    def active(self, key_id: str) -> Signer:
        """The key that the log says signs now. A rotation that was recorded and not finished is finished.

        Raises ConfigError that names the file to copy when neither is that key.
        """
        signer = _read(self.path)
        if signer is not None and signer.public.key_id == key_id:
            return signer
        staged = _read(self._next)
        if staged is not None and staged.public.key_id == key_id:
            self._next.replace(self.path)
            return staged
        held = f"holds key {signer.public.key_id}" if signer else "does not exist"
        raise ConfigError(
            f"the log is signed with key {key_id}, and {self.path} {held}: "
            "copy key_file from the coordinator that led before, readable for its owner only"
        )

    def first(self, entropy: Entropy) -> Signer:
        """The key of a log that has none yet: the one in the file, or a new one. Raises ConfigError."""
        signer = _read(self.path)
        if signer is None:
            make_directory(self.path.parent)
            self._create(Signer.of_seed(entropy.draw(SEED_BYTES)))
            signer = _read(self.path)
        assert signer is not None, "it was there or was created"
        return signer

    def stage(self, entropy: Entropy) -> Signer:
        """A key to rotate to, kept before the log names it: the one that is staged, or a new one. Raises ConfigError.

        A staged key stays until it signs: the log may name it already, where nobody heard the answer of the append.
        """
        signer = _read(self._next)
        if signer is None:
            signer = Signer.of_seed(entropy.draw(SEED_BYTES))
            _write(self._next, signer)
        return signer

    def _create(self, signer: Signer) -> None:
        """Puts a key where none is. Of two coordinators that start at once the first one's stays."""
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        _write(partial, signer)
        with contextlib.suppress(FileExistsError):
            self.path.hardlink_to(partial)
        partial.unlink()
        sync_directory(self.path.parent)


def _write(path: Path, signer: Signer) -> None:
    try:
        write_private(path, signer.pem())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; set key_file to a path that can be") from None


def _read(path: Path) -> Signer | None:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(SECRET_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check its owner") from None
    if mode & 0o077:
        raise ConfigError(f"{path} holds the signing key and others may read it: chmod 600 {path}")
    signer = Signer.of_pem(content)
    if signer is None:
        raise ConfigError(f"{path} holds no Ed25519 key in PEM; restore it from a copy")
    return signer
