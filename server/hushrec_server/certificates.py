"""Certificates of devices, each checked once: HTTP side and inside both ask, and a signature takes .12 ms to check."""

from functools import lru_cache

from hushrec_privacy.enrolment import Certificate, verified_certificate

__all__ = ["checked_certificate"]

_KEPT = 256  # more than there are check-ins at work in one process


@lru_cache(_KEPT)
def checked_certificate(data: bytes, authority: bytes, plan_id: str) -> Certificate:
    """`verified_certificate`, which depends on nothing but its arguments. An error is not kept.

    Raises:
        EnrolmentError: See there.
        ConfigError: See there.
    """
    return verified_certificate(data, authority, plan_id=plan_id)
