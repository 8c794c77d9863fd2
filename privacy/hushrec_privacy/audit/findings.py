"""What an audit of a mechanism found: one finding a thing, and all of them together."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Finding", "MechanismAudit"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: `noise-scale`, `noise-shape`, `noise-reuse`, `clipping`, `participation` or `sampling`.
        passed: Whether it is as claimed.
        claimed: The claimed value.
        estimate: The value found.
        interval: Where the true value lies by chance alone, at the level of this test; equal ends: no chance in it.
        p_value: Chance of a finding as far off by a sound mechanism; None: no chance in it.
    """

    name: str
    passed: bool
    claimed: float
    estimate: float
    interval: tuple[float, float]
    p_value: float | None


@dataclass(frozen=True)
class MechanismAudit:
    """All findings.

    Attributes:
        findings: One of each thing looked at.
        level: Chance that a sound mechanism fails.
        draws: Draws of the worst-case projection.
    """

    findings: tuple[Finding, ...]
    level: float
    draws: int

    @property
    def passed(self) -> bool:
        """Whether everything is as claimed."""
        return all(finding.passed for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = [asdict(finding) | {"interval": list(finding.interval)} for finding in self.findings]
        return {"passed": self.passed, "level": self.level, "draws": self.draws, "findings": found}
