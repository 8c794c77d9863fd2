"""What a ledger's entries say: it begins, a plan opens, rounds are spent, a plan closes.

Plain values in canonical JSON, so that another program can recompute every ε from the file alone. An entry never
changes its meaning: new meaning, new `kind` or new field. Knows nothing of order and limits (see `rules`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

from hushrec_privacy.canonical import LARGEST_INTEGER, decimal, decode, encode
from hushrec_privacy.checks import at_least, one_of
from hushrec_privacy.errors import ConfigError, LedgerError

__all__ = ["Close", "Entry", "Genesis", "Limits", "Open", "Spend", "entry_bytes", "read_entry"]

ADJACENCIES = ("zero-out", "add-or-remove")
LARGEST_ENTRY_BYTES = 65_536
LONGEST_PURPOSE = 4_000
_PLAN = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan may spend at most.

    Attributes:
        max_rounds: T: rounds (or training steps) are numbered 1 to T.
        cap: How many rounds may be spent; None: all T. On a device: its participations k.
        separation: b: at least so many rounds from one spent round to the next; 1: they may follow each other.
        max_rho: ρ of zero-concentrated DP that the plan may spend in all, a decimal string; None: not limited here.
        max_epsilon: ε at the plan's δ that the plan may reach, a decimal string; None: not limited here.
    """

    max_rounds: int
    cap: int | None = None
    separation: int = 1
    max_rho: str | None = None
    max_epsilon: str | None = None

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: One of them is wrong.
        """
        _whole(1, max_rounds=self.max_rounds, separation=self.separation)
        if self.cap is not None:
            _whole(1, cap=self.cap)
        _decimals(max_rho=self.max_rho, max_epsilon=self.max_epsilon)


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first entry of every ledger; nothing can change it later.

    Attributes:
        lifetime_rho: ρ that all plans together may spend, a decimal string; None: no such limit.
        at_s: When, in seconds since 1970-01-01 UTC; None: not told.
    """

    kind: ClassVar[str] = "genesis"
    lifetime_rho: str | None = None
    at_s: int | None = None

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: One of them is wrong.
        """
        _decimals(lifetime_rho=self.lifetime_rho)
        _time(self.at_s)


@dataclass(frozen=True, slots=True)
class Open:
    """A plan, or a training run, begins. It holds all that is needed to compute its ε again.

    Attributes:
        plan: sha256 of the plan's bytes, 64 lower-case hex digits.
        mechanism: Name of the mechanism.
        parameters: Its parameters by name, whole numbers or decimal strings. All of them are public.
        unit: Whom one ε protects, such as "device" or "user".
        adjacency: "zero-out" or "add-or-remove".
        delta: δ, a decimal string.
        trust: Who sees what before the noise is added, such as "central".
        limits: What may be spent at most.
        demo: Made under limits that protect nobody.
        at_s: When, in seconds since 1970-01-01 UTC; None: not told.
        purpose: What is sent and what for, in words for the shopper; None: not told.
    """

    kind: ClassVar[str] = "open"
    plan: str
    mechanism: str
    parameters: Mapping[str, int | str]
    unit: str
    adjacency: str
    delta: str
    trust: str
    limits: Limits
    demo: bool = field(default=False, kw_only=True)
    at_s: int | None = field(default=None, kw_only=True)
    purpose: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: One of them is wrong.
        """
        _plan(self.plan)
        if self.purpose is not None:
            _word("purpose", self.purpose, most=LONGEST_PURPOSE)
        for name in ("mechanism", "unit", "trust"):
            _word(name, getattr(self, name))
        one_of(ADJACENCIES, adjacency=self.adjacency)
        if decimal(self.delta, name="delta") > 1:
            raise ConfigError(f"delta is {self.delta}; it is a probability, from 0 to 1")
        if not isinstance(self.parameters, Mapping):
            raise ConfigError("parameters is no mapping from names to numbers")
        for name, value in self.parameters.items():
            if isinstance(value, int):
                _whole(0, **{name: value})
            else:
                decimal(value, name=name)
        if not isinstance(self.limits, Limits):
            raise ConfigError(f"limits is {self.limits!r}; it must be of type Limits")
        if not isinstance(self.demo, bool):
            raise ConfigError(f"demo is {self.demo!r}; it must be true or false")
        _time(self.at_s)


@dataclass(frozen=True, slots=True)
class Spend:
    """The rounds `first` to `last` of a plan are spent, whatever comes of them.

    Attributes:
        plan: Id of the plan.
        first: First round (or step), from 1.
        last: Last one, `first` or later.
        rho: By how much the plan's ρ rises at most through these rounds, a decimal string; None: not told.
        epsilon: The plan's ε at its δ after them, a decimal string; None: not told.
        at_s: When, in seconds since 1970-01-01 UTC; None: not told.
    """

    kind: ClassVar[str] = "spend"
    plan: str
    first: int
    last: int
    rho: str | None = None
    epsilon: str | None = None
    at_s: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: One of them is wrong.
        """
        _plan(self.plan)
        _whole(1, first=self.first)
        _whole(self.first, last=self.last)
        _decimals(rho=self.rho, epsilon=self.epsilon)
        _time(self.at_s)


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more is spent in this plan.

    Attributes:
        plan: Id of the plan.
        at_s: When, in seconds since 1970-01-01 UTC; None: not told.
    """

    kind: ClassVar[str] = "close"
    plan: str
    at_s: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: One of them is wrong.
        """
        _plan(self.plan)
        _time(self.at_s)


Entry = Genesis | Open | Spend | Close
_KINDS: dict[str, type[Entry]] = {kind.kind: kind for kind in (Genesis, Open, Spend, Close)}
_NAMES = {kind: tuple(each.name for each in fields(kind)) for kind in (Limits, *_KINDS.values())}


def entry_bytes(entry: Entry) -> bytes:
    """Write an entry as canonical JSON; fields that are None are left out.

    Raises:
        ConfigError: It is larger than 64 KiB.

    >>> entry_bytes(Close("ab" * 32))[:30]
    b'{"kind":"close","plan":"ababab'
    """
    data = encode(_all_fields(entry))
    if len(data) > LARGEST_ENTRY_BYTES:
        raise ConfigError(f"a ledger entry has {len(data)} bytes; at most {LARGEST_ENTRY_BYTES} are allowed")
    return data


def read_entry(data: bytes, *, name: str = "the entry") -> Entry:
    """Read an entry back; `entry_bytes` of it gives the same bytes.

    Args:
        data: Untrusted bytes.
        name: What they are, for the message.

    Raises:
        LedgerError: They are no entry, or one of a newer hushrec.

    >>> read_entry(b'{"kind":"genesis"}')
    Genesis(lifetime_rho=None, at_s=None)
    """
    if len(data) > LARGEST_ENTRY_BYTES:
        raise LedgerError(f"{name} has {len(data)} bytes; at most {LARGEST_ENTRY_BYTES} are allowed")
    given = decode(data, name=name, error=LedgerError)
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        raise LedgerError(f"{name} is no ledger entry")
    kind = _KINDS.get(given["kind"])
    if kind is None:
        raise LedgerError(f"{name} is of a kind that this hushrec does not know; update hushrec")
    told = {key: value for key, value in given.items() if key != "kind"}
    try:
        if "limits" in told:
            told["limits"] = Limits(**told["limits"])
        entry = kind(**told)
    except (TypeError, ConfigError) as error:  # TypeError: a field is missing, or one that this version does not know
        raise LedgerError(f"{name} has a wrong field ({error})") from error
    if _all_fields(entry) != given:  # one meaning has one byte string: no default is spelled out or left out
        raise LedgerError(f"{name} is not written as hushrec writes it")
    return entry


def _all_fields(entry: Entry) -> dict[str, object]:
    return {"kind": entry.kind, **_told(entry)}


def _told(values: "Entry | Limits") -> dict[str, object]:
    """The fields that are not None, those of `Limits` in an object of their own."""
    told: dict[str, object] = {}
    for name in _NAMES[type(values)]:
        value = getattr(values, name)
        if value is not None:
            told[name] = value
    if isinstance(values, Open):
        told.update(parameters=dict(values.parameters), limits=_told(values.limits))
    return told


def _plan(plan: object) -> None:
    if not (isinstance(plan, str) and _PLAN.fullmatch(plan)):
        raise ConfigError("the plan id is wrong; it is the sha256 of the plan's bytes, 64 lower-case hex digits")


def _word(name: str, text: object, most: int = 200) -> None:
    if not (isinstance(text, str) and 1 <= len(text) <= most and text.isprintable()):
        raise ConfigError(f"{name} must be 1 to {most} printable characters")


def _whole(minimum: int, **values: int) -> None:
    at_least(minimum, **values)
    for name, value in values.items():
        if value > LARGEST_INTEGER:
            raise ConfigError(f"{name} is {value}; it must be at most 2^53 - 1")


def _decimals(**texts: str | None) -> None:
    for name, text in texts.items():
        if text is not None:
            decimal(text, name=name)


def _time(at_s: int | None) -> None:
    if at_s is not None:
        _whole(0, at_s=at_s)
