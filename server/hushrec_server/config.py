"""The server's one configuration file, hushrec.toml: every key has a default, and secrets stand nowhere in it.

A secret is a file in the data folder that only its owner can read, or an environment variable. `TEMPLATE` is the file
with every key at its default; `hushrec serve --print-config` prints it.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.server_names import SERVER_NAME

from hushrec_server.proxies import checked_proxies

__all__ = [
    "DATABASE_VARIABLE",
    "TEMPLATE",
    "Config",
    "LimitSettings",
    "ReleaseSettings",
    "ServerSettings",
    "TrustSettings",
    "read_config",
]

DATABASE_VARIABLE = "HUSHREC_DATABASE"
"""Environment variable with the database's URL, for one that holds a password."""

TEMPLATE = """\
# Configuration of `hushrec serve`. Every key is optional; what stands here behind a # is its default.
# No secret belongs here. Keys are files in the data folder; a database URL with a password is given by the
# environment variable HUSHREC_DATABASE.

[server]
# name = "hushrec"            # bound into every envelope; the same as in the signed envelope keys
# host = "127.0.0.1"          # behind a reverse proxy that ends TLS; another address only with care
# port = 8470
# data = "hushrec-data"       # keys, SQLite database, releases; readable by its owner alone
# database = ""               # empty: SQLite in the data folder; or postgresql+psycopg://user@host/name
# plans = []                  # plan files to add at the start, each with its .sig beside it
# proxies = []                # addresses or networks of reverse proxies whose X-Forwarded-For is believed

[trust]
# plan_key = "plan.pub"       # public half of the shop's plan key, 64 hexadecimal digits; in the data folder
# run_authority = ""          # FOR DEMONSTRATIONS ONLY: a folder of `hushrec authority init` to serve as well. Then one
                              # operator holds both keys, and secure aggregation does not protect against that operator.

[releases]
# held_out = ""               # histories, a JSON array of item ids on each line: a model that ranks them worse stays in
# evaluated_by_devices = false  # true: no model goes out before devices have compared it; needs a plan that compares
# most_loss = 0.02            # share of NDCG@10 that a new model may lose, on the histories and on devices
# server_rate = 0.004         # largest step of the server's optimizer, FedAdam; less where a plan's noise is loud

[limits]
# address_per_minute = 600    # requests of one address (first 64 bits of IPv6); raise it where many share one
# device_per_minute = 120     # signed requests of one device
# connections = 2000          # of this process; each device of a round may hold one
# connections_per_address = 256  # not counted behind proxies
# head_seconds = 10           # for a request's head to arrive
# body_seconds = 30           # for its body to arrive
# body_megabytes = 256        # of bodies held at once; of one address at most an eighth
"""

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list in [ ]",
    "object": "a section",
}
"""What the types of TOML are called."""

_Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [server]; see `TEMPLATE`."""

    name: Annotated[str, msgspec.Meta(pattern=SERVER_NAME)] = "hushrec"
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8470
    data: str = "hushrec-data"
    database: str = ""
    plans: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()


class TrustSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [trust]; see `TEMPLATE`."""

    plan_key: str = "plan.pub"
    run_authority: str = ""


class ReleaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [releases]; see `TEMPLATE`."""

    held_out: str = ""
    evaluated_by_devices: bool = False
    most_loss: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.02
    server_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.004


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section [limits]; see `TEMPLATE`."""

    address_per_minute: _Count = 600
    device_per_minute: _Count = 120
    connections: _Count = 2_000
    connections_per_address: _Count = 256
    head_seconds: _Count = 10
    body_seconds: _Count = 30
    body_megabytes: _Count = 256


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration.

    Relative paths are relative to the folder of the file they stand in; without a file, to the working folder.
    `trust` names files in the data folder, unless they are absolute.
    """

    server: ServerSettings = msgspec.field(default_factory=ServerSettings)
    trust: TrustSettings = msgspec.field(default_factory=TrustSettings)
    releases: ReleaseSettings = msgspec.field(default_factory=ReleaseSettings)
    limits: LimitSettings = msgspec.field(default_factory=LimitSettings)

    @property
    def data(self) -> Path:
        """The data folder."""
        return Path(self.server.data)

    @property
    def plan_key_file(self) -> Path:
        """Where the public half of the plan key is."""
        return self.data / self.trust.plan_key

    def database_url(self, environment: Mapping[str, str] = os.environ) -> str:
        """The database to use: of the environment, of the file, or SQLite in the data folder."""
        found = environment.get(DATABASE_VARIABLE) or self.server.database
        return found or f"sqlite:///{self.data.resolve() / 'hushrec.sqlite'}"


def read_config(
    path: Path | None = None, *, database: str | None = None, data: Path | None = None, plans: tuple[Path, ...] = ()
) -> Config:
    """Read the configuration, with what was given on the command line in place of what the file says.

    Args:
        path: The file; None: defaults.
        database: URL of a database, without a password.
        data: The data folder.
        plans: Plan files to add.

    Raises:
        ConfigError: The file cannot be read, or holds an unknown key, a wrong value or a secret; names all of them.
    """
    values = _parsed(path) if path is not None else {}
    _refuse_unknown(values, str(path))
    try:
        config = msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {_in_words(str(error))}; the template says what is allowed: hushrec serve --print-config"
        ) from error
    folder = path.parent if path is not None else Path()
    server = config.server
    try:
        proxies = checked_proxies(server.proxies)
    except ConfigError as error:
        raise ConfigError(f"{path}: server.proxies: {error.message}") from error
    server = msgspec.structs.replace(
        server,
        data=str(data if data is not None else folder / server.data),
        plans=(*(str(folder / plan) for plan in server.plans), *map(str, plans)),
        database=server.database if database is None else database,
        proxies=proxies,
    )
    _refuse_password(server.database)
    trust, releases = config.trust, config.releases
    if trust.run_authority:
        trust = msgspec.structs.replace(trust, run_authority=str(folder / trust.run_authority))
    if releases.held_out:
        releases = msgspec.structs.replace(releases, held_out=str(folder / releases.held_out))
    return msgspec.structs.replace(config, server=server, trust=trust, releases=releases)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {error}") from error


def _in_words(problem: str) -> str:
    """What a value must be, after the key that it stands under.

    >>> _in_words("Expected `int` <= 65535 - at `$.server.port`")
    'server.port: expected a whole number <= 65535'
    >>> _in_words("Expected `array`, got `str` - at `$.server.plans`")
    'server.plans: expected a list in [ ], got a text in quotes'
    """
    what, _, key = problem.partition(" - at `$.")
    if "matching regex" in what:
        what = "expected 1 to 63 of a to z, 0 to 9, '.' and '-', the first a letter or digit"
    for word, meant in _WORDS.items():
        what = what.replace(f"`{word}`", meant)
    return f"{key.rstrip('`')}: {what[:1].lower()}{what[1:]}"


def _refuse_unknown(values: Mapping[str, Any], place: str) -> None:
    sections: dict[str, type[msgspec.Struct]] = {
        "server": ServerSettings,
        "trust": TrustSettings,
        "releases": ReleaseSettings,
        "limits": LimitSettings,
    }
    problems = []
    for section, inner in values.items():
        if section not in sections:
            problems.append(f"[{section}]{checks.nearest(section, sections)}")
        elif not isinstance(inner, dict):
            problems.append(f"{section}, which must be a section")
        else:
            known = sections[section].__struct_fields__
            problems += [f"{section}.{key}{checks.nearest(key, known)}" for key in inner if key not in known]
    if problems:
        raise ConfigError(f"{place}: not known: {', '.join(problems)}")


def _refuse_password(url: str) -> None:
    try:
        parts = urlsplit(url)
        secret = parts.password or [name for name, _ in parse_qsl(parts.query) if "password" in name]
    except ValueError as error:
        raise ConfigError("the database URL cannot be read; write postgresql+psycopg://user@host/name") from error
    if secret:
        raise ConfigError(
            f"the database URL holds a password, which others could read there; give it by the environment variable "
            f"{DATABASE_VARIABLE}, or by PGPASSFILE"
        )
