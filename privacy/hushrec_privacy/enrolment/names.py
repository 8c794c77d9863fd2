"""The bytes of the three names in enrolment: plan, pseudonym and account."""

import re

from hushrec_privacy.errors import EnrolmentError

__all__ = ["LONGEST_ACCOUNT_BYTES", "account_bytes", "plan_bytes", "pseudonym_bytes"]

LONGEST_ACCOUNT_BYTES = 256
_PLAN_ID = re.compile(r"[0-9a-f]{64}")
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")


def plan_bytes(plan_id: str) -> bytes:
    """The 32 bytes of a plan's id.

    Raises:
        EnrolmentError: It is not 64 hexadecimal digits, lower case.
    """
    if not (isinstance(plan_id, str) and _PLAN_ID.fullmatch(plan_id)):
        raise EnrolmentError("the id of a plan is 64 hexadecimal digits, lower case")
    return bytes.fromhex(plan_id)


def pseudonym_bytes(pseudonym: str) -> bytes:
    """The 16 bytes of a pseudonym.

    Raises:
        EnrolmentError: It is not 32 hexadecimal digits, lower case.
    """
    if not (isinstance(pseudonym, str) and _PSEUDONYM.fullmatch(pseudonym)):
        raise EnrolmentError("a pseudonym is 32 hexadecimal digits, lower case")
    return bytes.fromhex(pseudonym)


def account_bytes(account: str) -> bytes:
    """An account's name in UTF-8, not normalised: whoever names it writes it the same way every time.

    Raises:
        EnrolmentError: It is empty, longer than 256 bytes, or no valid Unicode.
    """
    try:
        data = account.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise EnrolmentError("the name of an account is no text") from error
    if not 1 <= len(data) <= LONGEST_ACCOUNT_BYTES:
        raise EnrolmentError(f"the name of an account has 1 to {LONGEST_ACCOUNT_BYTES} bytes")
    return data
