"""Keys that sign checkpoints (Ed25519, RFC 8032), and how one vouches for the next."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hivefold.errors import ProofError

SEED_BYTES: Final = 32
_PUBLIC_BYTES: Final = 32
_ENDORSEMENT: Final = b"hivefold-endorsement-v1\0"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key. Raises ProofError for other than 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != _PUBLIC_BYTES:
            raise ProofError(f"a public key has {_PUBLIC_BYTES} bytes, not {len(self.raw)}; check where it came from")

    @property
    def key_id(self) -> str:
        """The key's fingerprint: the first 16 bytes of its SHA-256 in hex."""
        return hashlib.sha256(self.raw).hexdigest()[:32]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the key's owner signed `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A private key. Its repr does not show it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def of_seed(cls, seed: bytes) -> Signer:
        """The key that 32 random bytes make."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def of_pem(cls, content: bytes) -> Signer | None:
        """The key in a PEM file (PKCS #8, no passphrase); None when there is none."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # large: nodes only verify

        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return None
        return cls(key) if isinstance(key, Ed25519PrivateKey) else None

    def pem(self) -> str:
        """The key as a PEM file holds it. Secret."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, 64 bytes."""
        return self._key.sign(message)

    def endorse(self, chain_id: bytes, successor: PublicKey) -> bytes:
        """The signature by which this key hands over to another in the log `chain_id`."""
        return self.sign(endorsement_text(chain_id, self.public, successor))

    def __repr__(self) -> str:
        return f"Signer({self.public.key_id})"


@dataclass(frozen=True, slots=True)
class KeyStatement:
    """A signing key as the log names it: itself, the key before it, and that one's signature (both empty at first)."""

    key_id: str
    public_key: bytes
    previous_key_id: str = ""
    endorsement: bytes = b""

    def known(self) -> PublicKey:
        """The key, once it is plain that it has its own id. Raises ProofError."""
        key = PublicKey(self.public_key)
        if self.key_id != key.key_id:
            raise ProofError(f"a signing key is called {self.key_id} and is {key.key_id}: one of them was altered")
        return key

    def check(self, chain_id: bytes, previous: PublicKey | None) -> PublicKey:
        """The key, once it is plain that it may follow `previous` (None: is the first). Raises ProofError."""
        key = self.known()
        if previous is None:
            if self.previous_key_id or self.endorsement:
                raise ProofError(f"signing key {key.key_id} is the first and names one before it")
            return key
        if self.previous_key_id != previous.key_id or not previous.verifies(
            self.endorsement, endorsement_text(chain_id, previous, key)
        ):
            raise ProofError(f"signing key {key.key_id} is not endorsed by key {previous.key_id}, which it replaces")
        return key


def endorsement_text(chain_id: bytes, previous: PublicKey, successor: PublicKey) -> bytes:
    """What a key signs to hand over to the next."""
    return b"".join((_ENDORSEMENT, chain_id, previous.raw, successor.raw))
