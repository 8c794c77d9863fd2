"""Enrolment: how a device of one account becomes one, and only one, member of a plan.

identity      the device's secret, one for each plan
certificate   what the authority signs: plan, pseudonym and identity
pseudonym     the name under which an account appears in one plan
login_token   how the shop's own login vouches for an account
"""

from hushrec_privacy.enrolment.certificate import (
    CERTIFICATE_BYTES,
    SIGNED_CERTIFICATE_BYTES,
    AuthorityKey,
    Certificate,
    verified_certificate,
)
from hushrec_privacy.enrolment.identity import Identity, verify
from hushrec_privacy.enrolment.login_token import login_token, plan_of_token, verified_token
from hushrec_privacy.enrolment.pseudonym import pseudonym

__all__ = [
    "CERTIFICATE_BYTES",
    "SIGNED_CERTIFICATE_BYTES",
    "AuthorityKey",
    "Certificate",
    "Identity",
    "login_token",
    "plan_of_token",
    "pseudonym",
    "verified_certificate",
    "verified_token",
    "verify",
]
