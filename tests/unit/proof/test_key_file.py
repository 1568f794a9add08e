"""The file with the signing key: made once, private, and clear about what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hivefold.entropy import SeededEntropy
from hivefold.errors import ConfigError
from hivefold.proof.key_file import KeyFile


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """The second start finds the key of the first."""
    file = KeyFile(tmp_path / "keys" / "signing.key")
    made = file.first(SeededEntropy(1))
    assert file.first(SeededEntropy(2)).public == made.public
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.active(made.public.key_id).public == made.public


def test_a_recorded_rotation_is_finished(tmp_path: Path) -> None:
    """A key that was staged is used once the log names it, and not before."""
    file = KeyFile(tmp_path / "signing.key")
    old, new = file.first(SeededEntropy(1)), file.stage(SeededEntropy(2))
    assert file.active(old.public.key_id).public == old.public
    assert file.active(new.public.key_id).public == new.public
    assert KeyFile(file.path).first(SeededEntropy(3)).public == new.public


def test_a_staged_key_stays_until_it_signs(tmp_path: Path) -> None:
    """Its rotation may be recorded though nobody heard so: another rotation must not take the key away."""
    file = KeyFile(tmp_path / "signing.key")
    file.first(SeededEntropy(1))
    staged = file.stage(SeededEntropy(2))
    assert file.stage(SeededEntropy(3)).public == staged.public
    assert file.active(staged.public.key_id).public == staged.public
    assert file.stage(SeededEntropy(4)).public != staged.public


def test_a_missing_or_older_key_is_told_with_the_file_to_copy(tmp_path: Path) -> None:
    """A coordinator on another host cannot sign without the fleet's key."""
    file = KeyFile(tmp_path / "signing.key")
    with pytest.raises(ConfigError, match=r"does not exist: copy key_file"):
        file.active("0" * 32)
    file.first(SeededEntropy(1))
    with pytest.raises(ConfigError, match=r"holds key [0-9a-f]{32}: copy key_file"):
        file.active("0" * 32)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    file = KeyFile(tmp_path / "signing.key")
    file.first(SeededEntropy(1))
    file.path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        file.first(SeededEntropy(1))


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    """A damaged file is not replaced by a new key in silence."""
    path = tmp_path / "signing.key"
    path.write_text("damaged")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no Ed25519 key"):
        KeyFile(path).first(SeededEntropy(1))
