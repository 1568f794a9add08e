"""Where a daemon's settings come from, which of them win, and what is said of wrong ones."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivefold.broker import BrokerSettings, Secret
from hivefold.config import (
    CoordinatorConfig,
    Durability,
    NodeConfig,
    load_coordinator_config,
    load_node_config,
    write_coordinator_config,
    write_node_config,
)
from hivefold.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which nobody has configured anything."""
    return {"HOME": str(tmp_path / "home")}


def toml(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def context(home: dict[str, str], name: str, **content: str) -> None:
    directory = Path(home["HOME"]) / ".config" / "nats"
    (directory / "context").mkdir(parents=True, exist_ok=True)
    (directory / "context" / f"{name}.json").write_text(json.dumps(content))


def select(home: dict[str, str], name: str) -> None:
    (Path(home["HOME"]) / ".config" / "nats" / "context.txt").write_text(name)


def test_without_any_setting_all_is_on_loopback(home: dict[str, str]) -> None:
    """Defaults reach a local server, listen locally, and ask for the strongest durability."""
    config = load_coordinator_config({}, home)

    assert config.core.servers == ("nats://127.0.0.1:4222",)
    assert (config.host, config.port) == ("127.0.0.1", None)
    assert config.durability is Durability.FSYNC_ALWAYS
    assert config.system is None


def test_flags_win_over_variables_over_nats_over_files(home: dict[str, str], tmp_path: Path) -> None:
    """The order of precedence, one source taken away at a time."""
    context(home, "prod", url="nats://context:4222")
    file = toml(tmp_path / "c.toml", '[nats]\nservers = ["nats://file:4222"]\n')
    selected = home | {"NATS_CONTEXT": "prod"}
    variable = selected | {"NATS_URL": "nats://variable:4222"}
    own = variable | {"HIVEFOLD_COORDINATOR_NATS_SERVERS": "nats://own:4222"}

    def host(flags: dict[str, object], environ: dict[str, str]) -> str:
        return load_coordinator_config(flags, environ, file).core.servers[0]

    assert host({"nats.servers": "nats://flag:4222"}, own) == "nats://flag:4222"
    assert host({"nats.servers": None}, own) == "nats://own:4222"
    assert host({}, variable) == "nats://variable:4222"
    assert host({}, selected) == "nats://context:4222"
    assert host({}, home) == "nats://file:4222"


def test_the_selected_context_of_the_nats_command_line_counts(home: dict[str, str]) -> None:
    """Whoever has selected a context with `nats context select` need not repeat it."""
    context(home, "team", url="nats://a:1,nats://b:2", user="u", password="p", ca="/ca.pem")
    select(home, "team")

    broker = load_node_config({}, home).broker

    assert broker.servers == ("nats://a:1", "nats://b:2")
    assert (broker.user, broker.password, broker.tls_ca_file) == ("u", Secret("p"), "/ca.pem")


def test_a_connection_of_its_own_counts_before_the_common_one(home: dict[str, str], tmp_path: Path) -> None:
    """[core] overrides [nats] within one source."""
    file = toml(tmp_path / "c.toml", '[nats]\nservers = ["nats://all:1"]\nuser = "u"\n[core]\nuser = "c"\n')

    config = load_coordinator_config({}, home, file)

    assert (config.core.user, config.nodes.user) == ("c", "u")
    assert config.core.servers == config.nodes.servers == ("nats://all:1",)


def test_a_written_file_stands_alone(home: dict[str, str], tmp_path: Path) -> None:
    """What `up` wrote for its daemons is not changed by a context or NATS_* of the person who ran it."""
    path = tmp_path / "n.toml"
    write_node_config(path, NodeConfig(broker=BrokerSettings(servers=("nats://127.0.0.1:5",), user="node.a")))
    context(home, "prod", url="nats://prod:4222", user="boss")
    select(home, "prod")

    broker = load_node_config({}, home | {"NATS_URL": "nats://elsewhere:1"}, path).broker

    assert (broker.servers, broker.user) == (("nats://127.0.0.1:5",), "node.a")


@pytest.mark.parametrize(
    ("flags", "environ", "text", "said"),
    [
        ({"prot": 1}, {}, "", "did you mean --port"),
        ({}, {"HIVEFOLD_COORDINATOR_PROT": "1"}, "", "did you mean HIVEFOLD_COORDINATOR_PORT"),
        ({}, {}, "prot = 1\n", "did you mean .*: port"),
        ({}, {}, "[cores]\nuser = 'x'\n", "core.user"),
        ({"port": 70000}, {}, "", "--port must be a whole number"),
        ({}, {"HIVEFOLD_COORDINATOR_PORT": "many"}, "", "HIVEFOLD_COORDINATOR_PORT must be"),
        ({}, {}, "port = true\n", "must be a whole number"),
        ({}, {}, 'durability = "maybe"\n', "fsync-always, fsync-interval, unknown"),
        ({}, {}, "id = 'Not A Name'\n", r"must be 1 to 64"),
        ({}, {}, "lost_after_ms = 100\n", "more than suspect_after_ms"),
        ({}, {}, "not toml", "is not TOML"),
        ({}, {"NATS_URL": "http://x"}, "", "nats://host:port"),
        ({}, {"NATS_CONTEXT": "missing"}, "", "nats context ls"),
        ({"core.password": "x"}, {}, "", "--core-password-file"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(
    home: dict[str, str], tmp_path: Path, flags: dict[str, object], environ: dict[str, str], text: str, said: str
) -> None:
    """The message names the flag, variable or file and says what to write instead."""
    with pytest.raises(ConfigError, match=said):
        load_coordinator_config(flags, home | environ, toml(tmp_path / "c.toml", text))


def test_a_file_that_is_not_there_is_named(home: dict[str, str], tmp_path: Path) -> None:
    """A missing file is an error, not a default."""
    with pytest.raises(ConfigError, match=r"c\.toml"):
        load_node_config({}, home, tmp_path / "c.toml")


def test_secrets_come_from_files_and_variables(home: dict[str, str], tmp_path: Path) -> None:
    """A secret's file is relative to the configuration that names it; its last line break is not part of it."""
    (tmp_path / "word").write_text("from-file\n")
    file = toml(tmp_path / "c.toml", '[core]\nuser = "u"\npassword_file = "word"\n')

    assert load_coordinator_config({}, home, file).core.password == Secret("from-file")
    own = home | {"HIVEFOLD_COORDINATOR_CORE_PASSWORD": "from-variable"}
    assert load_coordinator_config({}, own, file).core.password == Secret("from-variable")


def test_a_file_with_a_secret_must_be_private(home: dict[str, str], tmp_path: Path) -> None:
    """Where others may read the secret, the error says how to end that."""
    file = toml(tmp_path / "c.toml", '[core]\npassword = "canary"\n')
    file.chmod(0o644)

    with pytest.raises(ConfigError, match="chmod 600") as caught:
        load_coordinator_config({}, home, file)
    assert "canary" not in caught.value.message


def test_a_password_in_an_address_becomes_a_secret(home: dict[str, str]) -> None:
    """Addresses are shown in logs and errors; what precedes the @ is not."""
    broker = load_node_config({}, home | {"NATS_URL": "nats://me:canary%21@host:4222"}).broker

    assert (broker.user, broker.password) == ("me", Secret("canary!"))
    assert "canary" not in repr(broker)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
passwords = texts.filter(str.strip)
brokers = st.builds(
    BrokerSettings,
    servers=st.sampled_from([("nats://127.0.0.1:4222",), ("tls://a:1", "nats://b:2")]),
    user=texts,
    password=st.builds(Secret, passwords) | st.just(Secret()),
    token=st.builds(Secret, passwords) | st.just(Secret()),
    credentials_file=st.sampled_from(["", "/creds"]),
    tls_ca_file=st.sampled_from(["", "/c a.pem"]),
    client_name=st.just("hivefold-coordinator"),
    inbox_prefix=st.sampled_from(["_INBOX", "_INBOX_node-1"]),
)


@given(core=brokers, nodes=brokers, system=st.none() | brokers, port=st.none() | st.integers(0, 65535))
def test_a_coordinator_config_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    core: BrokerSettings,
    nodes: BrokerSettings,
    system: BrokerSettings | None,
    port: int | None,
) -> None:
    """Any configuration survives its file, which only its owner may read."""
    path = tmp_path_factory.mktemp("config") / "c.toml"
    config = CoordinatorConfig(
        core=core, nodes=nodes, system=system, port=port, coordinator_id="c-1", data_dir=path.parent, log_replicas=3
    )

    write_coordinator_config(path, config)

    assert load_coordinator_config({}, {}, path) == config
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_node_config_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Labels, bounds and the connection survive the file."""
    config = NodeConfig(
        broker=BrokerSettings(user="node.n", password=Secret("s"), client_name="hivefold-node"),
        node_id="n",
        port=0,
        data_dir=tmp_path,
        slots=4,
        threads=2,
        labels={"zone": "a b", "gpu": "no"},
        drain_s=1.5,
    )

    write_node_config(tmp_path / "n.toml", config)

    assert load_node_config({}, {}, tmp_path / "n.toml") == config


def test_servers_may_be_listed_with_commas() -> None:
    """As every NATS tool takes them, wherever they are named."""
    config = load_node_config({"nats.servers": ["nats://a:1, b:2", "tls://c:3"]}, {})
    assert config.broker.servers == ("nats://a:1", "nats://b:2", "tls://c:3")


@pytest.mark.parametrize("url", ["nats://a:1:2", "nats://a:port", "nats://a:99999", "http://a:1", "nats://"])
def test_a_server_that_is_no_address_is_refused(url: str) -> None:
    """Before anything connects, with the form that is wanted."""
    with pytest.raises(ConfigError, match="nats://host:port"):
        load_node_config({"nats.servers": [url]}, {})
