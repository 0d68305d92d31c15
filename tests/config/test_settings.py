"""Settings: names, units, precedence, contradictions, and what the operator is told."""

import contextlib
import os
import string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.config import DEFAULTS, SETTINGS, Setting, describe, frozen_differences, load
from sandpost.config.given import NOT_SETTINGS, Given, from_environment, from_flags, from_table
from sandpost.config.resolve import resolve
from sandpost.model.errors import ConfigError
from sandpost.model.limits import Limits

KAFKA = {"LOGS_BUS": "kafka", "LOGS_KAFKA_BROKERS": "k1:9092,k2:9093"}
TLS = {"LOGS_KAFKA_TLS": "on"}
SASL = {"LOGS_KAFKA_SASL": "SCRAM-SHA-256", "LOGS_KAFKA_USER": "me", "LOGS_KAFKA_PASSWORD_FILE": "/p"}
OPEN = [setting for setting in SETTINGS if not setting.secret]


def problem(**environ: str) -> str:
    """Return what an environment is refused with."""
    with pytest.raises(ConfigError) as caught:
        load({f"SANDPOST_{name}": value for name, value in environ.items()})
    return caught.value.message


def test_the_defaults_do_not_contradict_each_other() -> None:
    settings = resolve()
    assert dict(settings.values) == DEFAULTS
    assert settings.limits == Limits()


def test_every_limit_is_a_setting() -> None:
    names = {setting.name.removeprefix("limits.") for setting in SETTINGS if setting.name.startswith("limits.")}
    assert names == {field.name for field in msgspec.structs.fields(Limits)}


def test_names_are_unique_in_each_source_and_have_help() -> None:
    for attribute in ("name", "environment", "flag"):
        names = [getattr(setting, attribute) for setting in SETTINGS]
        assert len(set(names)) == len(names)
    assert not NOT_SETTINGS & {setting.environment for setting in SETTINGS}
    assert all(setting.help for setting in SETTINGS)


@pytest.mark.parametrize("setting", OPEN, ids=lambda setting: setting.name)
def test_a_setting_has_the_same_meaning_in_file_environment_and_flags(setting: Setting) -> None:
    shown = setting.kind.show(setting.default)
    from_file: Any = shown
    for part in reversed(setting.name.split(".")):
        from_file = {part: from_file}
    if setting.name == "listen":
        from_file = {"listen": shown}
    found = [
        from_table(from_file, "/etc/x.toml"),
        from_environment({setting.environment: shown}),
        from_flags([f"{setting.flag}={shown}"]),
    ]
    for source in found:
        settings = resolve(source)
        assert settings[setting.name] == setting.default
        assert settings.origins[setting.name] != "default"


def test_the_address_has_a_name_inside_its_table_too(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[listen]\naddress = "127.0.0.1:9000"\ninsecure = true\n')
    settings = load({}, (), str(path))
    assert settings["listen"] == "127.0.0.1:9000"
    assert settings["listen.insecure"] is True
    assert load({"SANDPOST_LISTEN_ADDRESS": "127.0.0.1:9001"})["listen"] == "127.0.0.1:9001"
    assert load({}, ["--listen-address", "127.0.0.1:9002"])["listen"] == "127.0.0.1:9002"


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('pool_size = 1\nqueue = 2\nworkers = 3\n[limits]\ndeadline = "7s"\n')
    environ = {"SANDPOST_QUEUE": "20", "SANDPOST_WORKERS": "30", "SANDPOST_CONFIG": str(path)}
    settings = load(environ, ["--workers", "31"])
    assert (settings["pool_size"], settings["queue"], settings["workers"]) == (1, 20, 31)
    assert settings["limits.deadline"] == 7.0
    rows = {row.name: (row.value, row.origin) for row in describe(settings)}
    assert rows["pool_size"] == ("1", str(path))
    assert rows["queue"] == ("20", "environment, SANDPOST_QUEUE")
    assert rows["workers"] == ("31", "flag --workers")
    assert rows["limits.deadline"] == ("7s", str(path))
    assert rows["limits.memory"] == ("128MiB", "default")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"POOLSIZE": "3"}, ["SANDPOST_POOLSIZE", "did you mean `SANDPOST_POOL_SIZE`"]),
        ({"LIMITS_DEADLINES": "3s"}, ["did you mean `SANDPOST_LIMITS_DEADLINE`"]),
        ({"LIMITS_DEADLINE": "5"}, ["limits.deadline", "SANDPOST_LIMITS_DEADLINE", "5", "30s"]),
        ({"LIMITS_DEADLINE": "5MiB"}, ["limits.deadline", "not a duration"]),
        ({"LIMITS_DEADLINE": "100ms"}, ["limits.deadline", "100ms", "1s"]),
        ({"LIMITS_DEADLINE": "2h"}, ["limits.deadline", "2h", "1h"]),
        ({"LIMITS_MEMORY": "128MB"}, ["limits.memory", "not a size", "128MiB"]),
        ({"LIMITS_MEMORY": "8MiB"}, ["limits.memory", "8MiB", "32MiB"]),
        ({"POOL_SIZE": "many"}, ["pool_size", "not a count"]),
        ({"POOL_SIZE": "-1"}, ["pool_size", "not a count"]),
        ({"POOL_SIZE": "1.5"}, ["pool_size", "not a count"]),
        ({"LISTEN": "8721"}, ["listen", "host and port"]),
        ({"LISTEN": "127.0.0.1:0"}, ["listen", "host and port"]),
        ({"LISTEN": "127.0.0.1:70000"}, ["listen", "host and port"]),
        ({"LISTEN": "::1:80"}, ["listen", "[::1]:8721"]),
        ({"LISTEN": "1.2.3:80"}, ["listen", "host and port"]),
        ({"LISTEN": ""}, ["listen", "empty"]),
        ({"LISTEN_INSECURE": "perhaps"}, ["listen.insecure", "neither true nor false"]),
        ({"STATE_DIR": "relative"}, ["state_dir", "absolute"]),
        ({"STATE_DIR": "/"}, ["state_dir", "folder of its own"]),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, ["trusted_proxies", "not a network"]),
        ({"NETWORK_BLOCK": "fd00::/8"}, ["network.block", "IPv4"]),
        ({"MEMORY_RESERVE": "95%"}, ["memory_reserve", "95%", "90%"]),
        ({"INSTANCE": "16"}, ["instance", "0 to 15"]),
        ({"LOGS_BUS": "redis"}, ["logs.bus", "local, kafka"]),
        ({"LOGS_KEEP": "1KiB"}, ["logs.keep", "1KiB", "1MiB"]),
        ({"LOGS_KAFKA_BROKERS": "kafka1"}, ["logs.kafka.brokers", "host and port"]),
        ({"LOGS_KAFKA_BROKERS": ",".join(["a:1"] * 33)}, ["logs.kafka.brokers", "too many"]),
        ({"LOGS_KAFKA_PORTS": "9092,99999"}, ["logs.kafka.ports", "99999", "not a port"]),
        ({"LOGS_KAFKA_TOPIC": "of us"}, ["logs.kafka.topic", "name of a topic"]),
        ({"LOGS_KAFKA_TOPIC": ".."}, ["logs.kafka.topic", "name of a topic"]),
        ({"LOGS_OTLP_ENDPOINT": "collector:4318"}, ["logs.otlp.endpoint", "not a URL", "/v1/logs"]),
        ({"LOGS_OTLP_ENDPOINT": "ftp://collector/v1/logs"}, ["logs.otlp.endpoint", "not a URL"]),
        ({"LOGS_OTLP_ENDPOINT": "http://c:99999/v1/logs"}, ["logs.otlp.endpoint", "not a URL"]),
        ({"LOGS_OTLP_ENDPOINT": "http://me:word@c/v1/logs"}, ["logs.otlp.endpoint", "file of headers"]),
        ({"LOGS_OTLP_ENDPOINT": "http://c/v1/logs?key=1"}, ["logs.otlp.endpoint", "file of headers"]),
        ({"LOGS_KAFKA_SASL": "GSSAPI"}, ["logs.kafka.sasl", "SCRAM-SHA-512"]),
        ({"OCI_RUNTIME": ""}, ["oci.runtime", "empty", "runc"]),
        ({"ADMIN_KEY": "short"}, ["admin_key", "SANDPOST_ADMIN_KEY", "at least 16"]),
        ({"ADMIN_KEY": "with a space in the midst"}, ["admin_key", "no space"]),
        ({"ADMIN_KEY": "\u00fcmlaute-sind-schwierig"}, ["admin_key", "ASCII"]),
        ({"ADMIN_KEY": "line\nbreak-line-break"}, ["admin_key"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_origin_and_what_would_be_right(
    environ: dict[str, str], words: list[str]
) -> None:
    message = problem(**environ)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"LISTEN": "0.0.0.0:8721"}, ["listen", "clear text", "listen.insecure"]),
        ({"LISTEN": "[::]:8721"}, ["listen", "listen.tls_cert"]),
        ({"LISTEN": "example.com:8721"}, ["listen", "trusted_proxies"]),
        ({"LISTEN_TLS_CERT": "/x.pem"}, ["listen.tls_key", "both"]),
        ({"LISTEN_TLS_KEY": "/x.pem"}, ["listen.tls_cert", "both"]),
        ({"METRICS_LISTEN": "127.0.0.1:8721"}, ["metrics.listen", "listen"]),
        ({"STATE_DIR": "/run/sandpost/x"}, ["state_dir", "run_dir", "apart"]),
        ({"RUN_DIR": "/var/lib/sandpost/run"}, ["run_dir", "state_dir", "apart"]),
        ({"IMAGE_DIR": "/var/lib/sandpost"}, ["image_dir", "state_dir"]),
        ({"IMAGE_DIR": "/run/sandpost"}, ["image_dir", "run_dir"]),
        ({"NETWORK_BLOCK": "10.0.0.0/24"}, ["network.block", "too small"]),
        ({"NETWORK_BLOCK": "10.0.0.0/8"}, ["network.block", "too large"]),
        ({"NETWORK_BLOCK": "10.0.0.0/10", "UIDS_BASE": str(0x7FF00000)}, ["uids.base", "network.block"]),
        (
            {"EGRESS_RESOLVERS": "192.0.2.53,198.19.31.255"},
            ["egress.resolvers", "198.19.31.255:53", "would ask itself"],
        ),
        ({"NETWORK_BLOCK": "127.0.0.0/16"}, ["network.block", "meaning of its own"]),
        ({"NETWORK_BLOCK": "10.0.0.0/22", "POOL_SIZE": "20"}, ["pool_size", "network.block"]),
        ({"LIMITS_MEMORY": "40MiB", "LIMITS_MEMORY_GUARANTEED": "41MiB"}, ["memory_guaranteed", "limits.memory"]),
        ({"LIMITS_CODE": "2MiB", "LIMITS_STORED_CODE": "1MiB"}, ["limits.stored_code", "limits.code"]),
        ({"LIMITS_DEADLINE": "5s", "LIMITS_BLOCKED_AFTER": "6s"}, ["blocked_after", "deadline"]),
        ({"ADMIN_KEY": "x" * 20, "ADMIN_KEY_FILE": "/x"}, ["admin_key", "keep one"]),
        ({"LOGS_KEEP": "1GiB", "LOGS_KEEP_ALL": "512MiB"}, ["logs.keep", "logs.keep_all", "512MiB"]),
        ({"LOGS_BUS": "kafka"}, ["logs.bus", "logs.kafka.brokers", "empty"]),
        ({"LOGS_KAFKA_BROKERS": "k:9092"}, ["logs.kafka.brokers", "logs.bus"]),
        (KAFKA | {"LOGS_KAFKA_TLS_CA": "/ca"}, ["logs.kafka.tls_ca", "logs.kafka.tls"]),
        (KAFKA | TLS | {"LOGS_KAFKA_TLS_CERT": "/c"}, ["logs.kafka.tls_cert", "logs.kafka.tls_key"]),
        (KAFKA | TLS | {"LOGS_KAFKA_TLS_KEY": "/k"}, ["logs.kafka.tls_key", "logs.kafka.tls_cert"]),
        (KAFKA | {"LOGS_KAFKA_USER": "me"}, ["logs.kafka.user", "logs.kafka.sasl", "none"]),
        (KAFKA | {"LOGS_KAFKA_SASL": "SCRAM-SHA-256", "LOGS_KAFKA_USER": "me"}, ["logs.kafka.password_file", "empty"]),
        (KAFKA | SASL | {"LOGS_KAFKA_SASL": "PLAIN"}, ["PLAIN", "clear text", "logs.kafka.tls"]),
        ({"LOGS_OTLP_HEADERS_FILE": "/h"}, ["logs.otlp.headers_file", "logs.otlp.endpoint"]),
        ({"LOGS_OTLP_CA": "/c"}, ["logs.otlp.ca", "logs.otlp.endpoint"]),
        ({"LOGS_OTLP_CA": "/c", "LOGS_OTLP_ENDPOINT": "http://127.0.0.1/v1/logs"}, ["logs.otlp.ca", "https"]),
        (
            {"LOGS_OTLP_HEADERS_FILE": "/h", "LOGS_OTLP_ENDPOINT": "http://collector/v1/logs"},
            ["logs.otlp.headers_file", "clear text", "https"],
        ),
    ],
)
def test_contradictions_are_told_in_one_sentence(environ: dict[str, str], words: list[str]) -> None:
    message = problem(**environ)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "environ",
    [
        {"LISTEN": "0.0.0.0:8721", "LISTEN_INSECURE": "true"},
        {"LISTEN": "0.0.0.0:8721", "TRUSTED_PROXIES": "10.0.0.0/8, 192.168.1.7"},
        {"LISTEN": "0.0.0.0:8721", "LISTEN_TLS_CERT": "/c.pem", "LISTEN_TLS_KEY": "/k.pem"},
        {"LISTEN": "[::1]:8721"},
        {"LISTEN": "localhost:8721"},
        # Only an explicit blocked_after contradicts a short deadline.
        {"LIMITS_DEADLINE": "5s"},
        {"LOGS_BUS": "local", "LOGS_KAFKA_BROKERS": "k:9092"},
        KAFKA | SASL,
        KAFKA | SASL | TLS | {"LOGS_KAFKA_SASL": "PLAIN"},
        SASL | {"LOGS_BUS": "kafka", "LOGS_KAFKA_BROKERS": "localhost:1,[::1]:2", "LOGS_KAFKA_SASL": "PLAIN"},
        {"LIMITS_IDLE": "0", "LIMITS_AGE": "0s", "LIMITS_BODY": "0", "LIMITS_COUNT": "0", "LIMITS_RATE": "0"},
    ],
)
def test_what_looks_alike_and_is_right_is_taken(environ: dict[str, str]) -> None:
    load({f"SANDPOST_{name}": value for name, value in environ.items()})


def test_an_unknown_name_in_the_file_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    for text, words in (
        ("poolsize = 3\n", ["poolsize", str(path), "pool_size"]),
        ("[limits]\ndeadlin = 3\n", ["limits.deadlin", "limits.deadline"]),
        ("[limit]\ndeadline = 3\n", ["[limit]", "[limits]"]),
        ("pool_size = \n", [str(path), "not TOML"]),
        ('listen = "0.0.0.0:1"\nlisten.insecure = true\n', ["not TOML", "the address is `address` in it"]),
        ('listen = "0.0.0.0:1"\n[listen]\ninsecure = true\n', ["not TOML", "the address is `address` in it"]),
        ("[limits]\ndeadline = 5\n", ["limits.deadline", str(path), "not a duration"]),
        ("[limits]\nmemory = true\n", ["limits.memory", "not a size"]),
        ("trusted_proxies = [5]\n", ["trusted_proxies", "not a network"]),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load({}, (), str(path))
        for word in words:
            assert word in caught.value.message
    with pytest.raises(ConfigError, match="no settings file"):
        load({}, (), str(tmp_path / "absent.toml"))


def test_flags_are_told_when_they_are_unknown_or_lack_a_value() -> None:
    with pytest.raises(ConfigError, match="did you mean `--pool-size`"):
        load({}, ["--poolsize", "3"])
    with pytest.raises(ConfigError, match="--pool-size needs a value"):
        load({}, ["--pool-size"])
    assert load({}, ["--listen-insecure", "--pool-size=4"])["pool_size"] == 4


def test_a_setting_given_twice_in_one_source_with_two_values_is_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        load({}, ["--pool-size", "3", "--pool-size", "4"])


def test_secrets_have_no_flag_and_do_not_stand_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="process lists"):
        load({}, ["--admin-key", "x" * 20])
    path = tmp_path / "x.toml"
    path.write_text(f'admin_key = "{"x" * 20}"\n')
    with pytest.raises(ConfigError, match="mode 0600") as caught:
        load({}, (), str(path))
    assert "x" * 20 not in caught.value.message


def test_a_secret_is_read_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("a-long-enough-key\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load({"SANDPOST_ADMIN_KEY_FILE": str(path)})
    path.chmod(0o600)
    settings = load({"SANDPOST_ADMIN_KEY_FILE": str(path)})
    assert settings["admin_key"] == "a-long-enough-key"
    path.write_text("\n")
    with pytest.raises(ConfigError, match="no secret"):
        load({"SANDPOST_ADMIN_KEY_FILE": str(path)})
    with pytest.raises(ConfigError, match="cannot read"):
        load({"SANDPOST_ADMIN_KEY_FILE": str(tmp_path / "absent")})
    path.write_text("too-few\n")
    with pytest.raises(ConfigError, match="at least 16") as caught:
        load({"SANDPOST_ADMIN_KEY_FILE": str(path)})
    assert f"file {path}" in caught.value.message
    assert "too-few" not in caught.value.message


def test_a_secrets_file_is_not_opened_by_who_only_looks(tmp_path: Path) -> None:
    settings = load({"SANDPOST_ADMIN_KEY_FILE": str(tmp_path / "absent")}, secrets=False)
    for may_read, shown in ((True, "[hidden]"), (False, "[unreadable]")):
        rows = {row.name: row for row in describe(settings, lambda _, may_read=may_read: may_read)}  # type: ignore[misc]
        assert (rows["admin_key"].value, rows["admin_key"].origin) == (shown, f"file {tmp_path}/absent")
    assert describe(load({}, secrets=False), lambda _: False) == describe(load({}))


def test_secrets_are_never_shown() -> None:
    settings = load({"SANDPOST_ADMIN_KEY": "a-long-enough-key"})
    rows = {row.name: row for row in describe(settings)}
    assert rows["admin_key"].value == "[hidden]"
    assert "a-long-enough-key" not in str(list(rows.values()))


def test_other_programs_names_in_the_environment_are_left_alone() -> None:
    load({"SANDPOST_KEY": "x", "SANDPOST_URL": "http://x", "PATH": "/bin", "POOL_SIZE": "x", **os.environ})


def test_what_a_running_installation_does_not_take_up_is_named() -> None:
    old = load({})
    new = load({"SANDPOST_WORKERS": "7", "SANDPOST_POOL_SIZE": "7", "SANDPOST_ADMIN_KEY": "x" * 20})
    assert frozen_differences(old, new) == ["workers"]


@given(
    st.dictionaries(
        st.sampled_from([setting.name for setting in OPEN]),
        st.one_of(
            st.text(max_size=12),
            st.integers(-5, 1 << 50),
            st.floats(allow_nan=True),
            st.booleans(),
            st.none(),
            st.lists(st.one_of(st.text(max_size=5), st.integers()), max_size=3),
            st.text(string.digits + ".smhdKMiB%:/[]", max_size=8),
        ),
        max_size=6,
    )
)
def test_anything_is_either_taken_or_refused_with_a_sentence(values: dict[str, Any]) -> None:
    try:
        settings = resolve([Given(name, raw, "test") for name, raw in values.items()])
    except ConfigError:
        return
    # What was taken can be written down and read again.
    again = resolve([Given(row.name, row.value, "again") for row in describe(settings) if row.name != "admin_key"])
    for setting in OPEN:
        before, after = settings[setting.name], again[setting.name]
        if isinstance(before, float):
            assert after == pytest.approx(before, rel=1e-3, abs=1e-3)
        else:
            assert after == before


@given(st.lists(st.text(max_size=10), max_size=5))
def test_any_flags_are_taken_or_refused_and_nothing_else_happens(flags: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        resolve(from_flags(flags))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"MODULES_NPM": "http://10.0.0.5:4873/"},
            "`modules.npm`: `10.0.0.5:4873` lies in 10.0.0.0/8, which no sandbox",
        ),
        ({"MODULES_PYPI": "https://127.0.0.1/simple/"}, "lies in 127.0.0.0/8"),
        ({"MODULES_NPM": "http://registry:4873/"}, "is no domain, address or block"),
        ({"MODULES_NPM": "http://[2001:db8::1]/"}, "is IPv6, which sandboxes do not have"),
        ({"MODULES_NPM": "https://user:hunter2@npm.example.com/"}, "without user"),
        ({"MODULES_HOSTS": "files.example.com,192.168.1.1:80"}, "lies in 192.168.0.0/16"),
        ({"MODULES_SIZE": "600MiB"}, "more than half of `modules.memory` 1GiB"),
        ({"MODULES_KEEP": "100MiB"}, "`modules.keep` 100MiB of all modules is less than `modules.size` 256MiB"),
    ],
)
def test_a_source_of_modules_that_no_sandbox_could_reach_is_told(given: dict[str, str], told: str) -> None:
    message = problem(**given)
    assert told in message
    assert "hunter2" not in message


def test_hosts_of_modules_have_a_port() -> None:
    assert load({"SANDPOST_MODULES_HOSTS": "a.example.com,b.example.com:8443"})["modules.hosts"] == [
        "a.example.com:443",
        "b.example.com:8443",
    ]
