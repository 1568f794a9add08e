"""Who a node is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hivefold.clock import ManualClock
from hivefold.entropy import SeededEntropy
from hivefold.errors import ConfigError
from hivefold.ids import is_name
from node.identity import held_data_dir, node_identity


def identity(folder: Path, configured: str = "", seed: int = 1) -> tuple[str, str]:
    return node_identity(folder, configured, ManualClock(), SeededEntropy(seed))


def test_the_id_stays_and_the_boot_changes(tmp_path: Path) -> None:
    """Over restarts on the same folder."""
    first, second = identity(tmp_path, seed=1), identity(tmp_path, seed=2)
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert is_name(first[0])
    assert is_name(first[1])


def test_a_configured_id_is_kept(tmp_path: Path) -> None:
    """Also when it is not configured the next time."""
    assert identity(tmp_path / "a", "gpu-7")[0] == "gpu-7"
    assert identity(tmp_path / "a")[0] == "gpu-7"


def test_a_folder_of_another_node_is_refused(tmp_path: Path) -> None:
    """Two nodes on one folder would share an id."""
    identity(tmp_path, "gpu-7")
    with pytest.raises(ConfigError, match="belongs to node 'gpu-7'"):
        identity(tmp_path, "gpu-8")


@pytest.mark.parametrize("name", ["UPPER", "a b", "a.b", "-a", "x" * 65])
def test_a_malformed_id_is_refused(tmp_path: Path, name: str) -> None:
    """It is a token of NATS subjects."""
    with pytest.raises(ConfigError, match="choose another"):
        identity(tmp_path, name)


def test_a_spoiled_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Not silently replaced: the node would be another one."""
    (tmp_path / "node-id").write_text("not an id\n")
    with pytest.raises(ConfigError, match="remove the file"):
        identity(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose a data_dir"):
        identity(tmp_path / "file" / "state")
    with pytest.raises(ConfigError, match="choose a data_dir"), held_data_dir(tmp_path / "file" / "state"):
        pass


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """And free again afterwards."""
    with (
        held_data_dir(tmp_path),
        pytest.raises(ConfigError, match="another node runs"),
        held_data_dir(tmp_path),
    ):
        pass
    with held_data_dir(tmp_path):
        pass
