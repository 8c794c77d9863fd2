"""What the vector of a device consists of: named segments, each with a bound of its own and a purpose in words.

The vector of a round is the concatenation of a plan's segments. Segment i of m is clipped to its own L2 norm clip_i and
multiplied by clip_norm / (clip_i sqrt(m)), so that the whole is never longer than clip_norm, and every segment has the
same share of the noise. Payloads that a device sends by itself (`DirectPayload`) are none of the vector: each carries
noise of its own. Says what is sent, and clips nothing.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from hushrec_privacy import canonical, checks
from hushrec_privacy.accounting.gaussian import check_delta
from hushrec_privacy.errors import ConfigError

__all__ = [
    "EVALUATION",
    "GAIN",
    "MOST_SEGMENTS",
    "PURPOSES",
    "TRENDING",
    "UPDATE",
    "DirectPayload",
    "Segment",
    "Vector",
    "check_schema",
]

PURPOSES = ("update", "counts", "features")
"""What rounds are for: training; counters and evaluation; feature vectors for the shop."""

UPDATE = "update"
"""Name of the one segment of a plan that trains, and its purpose."""

TRENDING, EVALUATION, GAIN = "trending", "evaluation", "gain"
"""Segments that hushrec counts by itself: items looked at, by catalogue index (several windows: trending-7d, …); sums
of hits@10 and NDCG@10 and the number of events they are over; hits@10 and NDCG@10 of a candidate less those of the
release in use, over the same events. Any other name is the app's to fill."""

MOST_SEGMENTS = 16
_LONGEST_PURPOSE = 160  # characters
_MOST_NUMBERS = 2**31
_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_LONGEST_NAME = 40


class _Row:
    """What both rows of a schema share: they are read from, and written as, one JSON object."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, all fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # only dataclasses

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Read it back.

        Raises:
            ConfigError: It has other fields, a field of another type, or one out of its range.
        """
        types = {f.name: f.type for f in fields(cls)}  # type: ignore[arg-type]  # only dataclasses
        if not isinstance(value, dict) or set(value) != set(types):
            raise ConfigError(f"a row of the schema must have exactly these fields: {', '.join(types)}")
        for name, type_ in types.items():
            if type(value[name]) is not type_:
                raise ConfigError(f"{name} of a row of the schema has the wrong type")
        return cls(**value)


@dataclass(frozen=True)
class Segment(_Row):
    """One named part of the vector.

    Attributes:
        name: Lower-case letters, digits and hyphens, such as "trending".
        length: How many numbers.
        clip: L2 bound of the part, in its own unit, a decimal string.
        purpose: What it is for, a sentence for the shopper.
        days: Events of so many days before the round are counted; 0: nothing of it depends on a time.

    Raises:
        ConfigError: A field is out of range.

    >>> Segment("trending", 1000, "3", "which items were looked at this week", 7).to_dict()["clip"]
    '3'
    """

    name: str
    length: int
    clip: str
    purpose: str
    days: int = 0

    def __post_init__(self) -> None:
        _check_row(self.name, self.length, self.clip, self.purpose)
        checks.at_least(0, days=self.days)
        if self.days > 3660:
            raise ConfigError(f"days is {self.days}; it must be at most 3660")

    def in_words(self) -> str:
        """What the segment is, for a receipt.

        >>> Segment("trending", 1000, "3", "which items were looked at", 7).in_words()
        'trending: which items were looked at (last 7 days)'
        """
        window = f" (last {self.days} days)" if self.days else ""
        return f"{self.name}: {self.purpose}{window}"


@dataclass(frozen=True)
class DirectPayload(_Row):
    """A vector that one device sends by itself, with noise that the device adds: the server sees it.

    Attributes:
        name: As for a segment.
        length: How many numbers.
        clip: L2 bound before the noise, a decimal string.
        purpose: What it is for, a sentence for the shopper.
        epsilon: Of one release, towards whoever sees it, a decimal string.
        delta: Of one release, a decimal string.
        releases: How often a device sends it at most.
        keep_days: After so many days the server deletes it.

    Raises:
        ConfigError: A field is out of range.
    """

    name: str
    length: int
    clip: str
    purpose: str
    epsilon: str
    delta: str
    releases: int
    keep_days: int

    def __post_init__(self) -> None:
        _check_row(self.name, self.length, self.clip, self.purpose)
        checks.positive(epsilon=_decimal(self.epsilon, "epsilon"), delta=_decimal(self.delta, "delta"))
        check_delta(float(self.delta))
        checks.at_least(1, releases=self.releases, keep_days=self.keep_days)
        for name, value, most in (("releases", self.releases, 10_000), ("keep_days", self.keep_days, 3660)):
            if value > most:
                raise ConfigError(f"{name} is {value}; it must be at most {most}")


@dataclass(frozen=True)
class Vector:
    """What devices send if they do not train: counts or features.

    Attributes:
        purpose: "counts" or "features".
        schema: The segments of the vector.
        direct: Payloads that a device may send by itself, noised there; only for features.

    Raises:
        ConfigError: A row is wrong, or the rows do not fit each other.
    """

    purpose: str
    schema: tuple[Segment, ...]
    direct: tuple[DirectPayload, ...] = ()

    def __post_init__(self) -> None:
        checks.one_of(("counts", "features"), purpose=self.purpose)
        check_schema(self.purpose, self.schema, self.direct, clip_norm="1")

    @classmethod
    def from_json(cls, data: bytes) -> "Vector":
        """Read what the shop wrote: an object with `purpose`, `schema` and, if there are any, `direct`.

        Raises:
            ConfigError: It is no such JSON.

        >>> Vector.from_json(b'{"purpose": "counts", "schema": [{"name": "visits", "length": 1, "clip": "7",'
        ...                  b' "purpose": "how often the app was opened", "days": 7}]}').schema[0].clip
        '7'
        """
        try:
            value = json.loads(data)
        except ValueError as error:
            raise ConfigError(f"the schema is no JSON ({error})") from error
        if not isinstance(value, dict) or not {"purpose", "schema"} <= set(value) <= {"purpose", "schema", "direct"}:
            raise ConfigError('the schema must be an object with "purpose", "schema" and, if wanted, "direct"')
        schema, direct = value["schema"], value.get("direct", [])
        if not (isinstance(value["purpose"], str) and isinstance(schema, list) and isinstance(direct, list)):
            raise ConfigError("purpose of the schema must be a word, its schema and direct lists of objects")
        rows = tuple(Segment.from_dict({"days": 0, **row} if isinstance(row, dict) else row) for row in schema)
        return cls(value["purpose"], rows, tuple(DirectPayload.from_dict(row) for row in direct))


def check_schema(purpose: str, schema: Sequence[Segment], direct: Sequence[DirectPayload], clip_norm: str) -> None:
    """Require rows that fit each other and what the plan is for.

    Args:
        purpose: One of `PURPOSES`.
        schema: Of the vector.
        direct: Of payloads beside it.
        clip_norm: L2 bound of the whole vector, a decimal string.

    Raises:
        ConfigError: They do not.
    """
    checks.one_of(PURPOSES, purpose=purpose)
    if not 1 <= len(schema) <= MOST_SEGMENTS or len(direct) > MOST_SEGMENTS:
        raise ConfigError(f"the schema must have 1 to {MOST_SEGMENTS} segments, and no more direct payloads")
    names = [*(row.name for row in schema), *(row.name for row in direct)]
    if len(set(names)) != len(names):
        raise ConfigError("two rows of the schema have one name")
    if purpose == UPDATE:
        if [(row.name, row.clip, row.days) for row in schema] != [(UPDATE, clip_norm, 0)]:
            raise ConfigError("a plan that trains has one segment, named 'update', whose clip is clip_norm")
    elif UPDATE in names:
        raise ConfigError("only a plan that trains has a segment named 'update'")
    if any(row.name == EVALUATION and row.length != 3 for row in schema):
        raise ConfigError("the segment 'evaluation' has 3 numbers: hits, NDCG, events")
    if GAIN in names:
        _check_gain(purpose, schema)
    if direct and purpose != "features":
        raise ConfigError("only a plan for features has direct payloads")


def _check_gain(purpose: str, schema: Sequence[Segment]) -> None:
    """A gain alone says nothing: what it is a share of stands in the evaluation beside it."""
    lengths = {row.name: row.length for row in schema}
    if purpose != "counts" or EVALUATION not in lengths:
        raise ConfigError("the segment 'gain' needs a plan for counts that has the segment 'evaluation', too")
    if lengths.get(GAIN) != 2:
        raise ConfigError("the segment 'gain' has 2 numbers: hits and NDCG of a candidate less those of the release")


def _check_row(name: str, length: int, clip: str, purpose: str) -> None:
    if not (isinstance(name, str) and len(name) <= _LONGEST_NAME and _SLUG.fullmatch(name)):
        raise ConfigError(
            f"the name of a segment must be lower-case letters, digits and hyphens, at most {_LONGEST_NAME}"
        )
    checks.at_least(1, length=length)
    if length > _MOST_NUMBERS:
        raise ConfigError(f"length of {name} is {length}; it must be at most {_MOST_NUMBERS}")
    checks.positive(clip=_decimal(clip, f"clip of {name}"))
    if not (isinstance(purpose, str) and 1 <= len(purpose) <= _LONGEST_PURPOSE and purpose.isprintable()):
        raise ConfigError(f"the purpose of {name} must be a sentence of 1 to {_LONGEST_PURPOSE} printable characters")


def _decimal(text: str, name: str) -> float:
    number = float(canonical.decimal(text, name=name))
    if number and not 1e-30 <= number <= 1e30:  # beyond it the square of a norm leaves what floats hold
        raise ConfigError(f"{name} is {text[:40]}; it must be from 1e-30 to 1e30")
    return math.fabs(number)
