"""One configuration file: its template is its defaults, unknown keys are named, secrets are refused."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_server.config import TEMPLATE, Config, read_config

COMMENTED = re.compile(r"^# ([a-z_]+ = .*)$", re.MULTILINE)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hushrec.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_template_as_it_is_gives_the_defaults(tmp_path: Path) -> None:
    found = read_config(written(tmp_path, TEMPLATE))
    assert msgspec.structs.replace(found.server, data="hushrec-data") == Config().server
    assert (found.trust, found.releases, found.limits) == (Config().trust, Config().releases, Config().limits)
    assert found.data == tmp_path / "hushrec-data"


def test_the_template_shows_every_key_at_its_default() -> None:
    shown = tomllib.loads(COMMENTED.sub(r"\1", TEMPLATE))
    assert msgspec.convert(shown, Config) == Config()
    for section in Config.__struct_fields__:
        assert set(shown[section]) == set(getattr(Config(), section).__struct_fields__)


def test_every_value_can_be_set(tmp_path: Path) -> None:
    text = """
    [server]
    name = "shop.example"
    host = "::1"
    port = 0
    data = "/var/lib/hushrec"
    database = "postgresql+psycopg://shop@localhost/fleet"
    plans = ["plans/one.json"]
    proxies = ["192.0.2.1"]
    [trust]
    plan_key = "/etc/hushrec/plan.pub"
    run_authority = "authority"
    [releases]
    held_out = "held_out.jsonl"
    evaluated_by_devices = true
    most_loss = 0.5
    [limits]
    address_per_minute = 1
    device_per_minute = 2
    connections = 3
    connections_per_address = 4
    head_seconds = 5
    body_seconds = 6
    body_megabytes = 7
    """
    found = read_config(written(tmp_path, text))
    assert found.server.plans == (str(tmp_path / "plans/one.json"),)
    assert found.plan_key_file == Path("/etc/hushrec/plan.pub")
    assert found.trust.run_authority == str(tmp_path / "authority")
    assert (found.releases.held_out, found.releases.most_loss) == (str(tmp_path / "held_out.jsonl"), 0.5)
    assert found.releases.evaluated_by_devices is True
    assert msgspec.structs.astuple(found.limits) == (1, 2, 3, 4, 5, 6, 7)
    assert found.database_url({}) == "postgresql+psycopg://shop@localhost/fleet"


def test_the_command_line_goes_before_the_file_and_the_environment_before_both(tmp_path: Path) -> None:
    path = written(tmp_path, '[server]\ndata = "a"\ndatabase = "sqlite:///a"\nplans = ["a.json"]\n')
    found = read_config(path, database="sqlite:///b", data=Path("b"), plans=(Path("b.json"),))
    assert (found.data, found.database_url({})) == (Path("b"), "sqlite:///b")
    assert found.server.plans == (str(tmp_path / "a.json"), "b.json")
    assert found.database_url({"HUSHREC_DATABASE": "sqlite:///c"}) == "sqlite:///c"


def test_without_a_database_it_is_sqlite_in_the_data_folder(tmp_path: Path) -> None:
    assert read_config(data=tmp_path).database_url({}) == f"sqlite:///{tmp_path / 'hushrec.sqlite'}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[serve]\n", r"\[serve\] \(did you mean 'server'\?\)"),
        ("[server]\nprot = 1\n", r"server.prot \(did you mean 'port'\?\)"),
        ("server = 1\n", "server, which must be a section"),
        ("[limits]\nhead_secs = 1\nbody_secs = 1\n", "limits.head_secs.*head_seconds.*limits.body_secs.*body_seconds"),
        ("[trust]\nplan_secret = 'x'\n", "trust.plan_secret"),
    ],
)
def test_unknown_keys_are_refused_naming_the_nearest(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_config(written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nport = 65536\n",
        "[server]\nport = '8470'\n",
        "[server]\nport = true\n",
        "[server]\nname = 'Shop!'\n",
        "[server]\nname = ''\n",
        "[server]\nplans = 'plan.json'\n",
        "[limits]\nconnections = 0\n",
        "[limits]\nhead_seconds = 1.5\n",
        "[server\n",
        "port = 1\nport = 2\n",
        "\xff",
    ],
)
def test_wrong_values_and_no_toml_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hushrec.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_config(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\nname = 'Shop!'\n", "server.name: expected 1 to 63 of a to z, 0 to 9, '.' and '-'"),
        ("[server]\nport = 65536\n", "server.port: expected a whole number <= 65535; the template"),
        ("[server]\nplans = [1]\n", "server.plans[0]: expected a text in quotes, got a whole number"),
        ("[releases]\nmost_loss = 1.5\n", "releases.most_loss: expected a number < 1.0"),
        ("[server]\nproxies = ['abc']\n", "server.proxies: the proxy 'abc' is no address or network"),
    ],
)
def test_a_wrong_value_is_told_in_words_with_its_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert error.value.message.startswith(f"{path}: {told}")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://shop:hunter2@localhost/fleet",
        "postgresql://:hunter2@h/f",
        "postgresql+psycopg://shop@localhost/fleet?password=hunter2",
        "postgresql+psycopg://shop@localhost/fleet?sslmode=require&sslpassword=hunter2",
    ],
)
def test_a_password_is_refused_in_the_file_and_on_the_command_line(tmp_path: Path, url: str) -> None:
    path = written(tmp_path, f"[server]\ndatabase = {url!r}\n")
    for file, database in ((None, url), (path, None)):
        with pytest.raises(ConfigError, match="HUSHREC_DATABASE") as error:
            read_config(file, database=database)
        assert "hunter2" not in error.value.message


def test_no_key_of_the_configuration_is_a_secret() -> None:
    words = re.compile("secret|password|token|seal")
    sections = [getattr(Config(), name) for name in Config.__struct_fields__]
    assert not [name for section in sections for name in section.__struct_fields__ if words.search(name)]


@pytest.mark.parametrize("proxy", ["", "*", "localhost", "proxy.shop.example", "127.0.0.1:80", "[::1]", "10.0.0.0/33"])
def test_a_proxy_that_is_no_address_is_named(tmp_path: Path, proxy: str) -> None:
    with pytest.raises(ConfigError, match=f"the proxy {re.escape(repr(proxy))} is no address or network"):
        read_config(written(tmp_path, f'[server]\nproxies = ["127.0.0.1", "{proxy}"]\n'))


def test_a_network_with_too_many_bits_is_told_which_one_was_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"here perhaps 10\.0\.0\.0/8"):
        read_config(written(tmp_path, '[server]\nproxies = ["10.0.0.1/8"]\n'))


def test_addresses_and_networks_are_proxies(tmp_path: Path) -> None:
    found = read_config(written(tmp_path, '[server]\nproxies = ["192.0.2.1", "::1", "10.0.0.0/8"]\n'))
    assert found.server.proxies == ("192.0.2.1", "::1", "10.0.0.0/8")
