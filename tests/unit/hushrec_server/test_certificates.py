"""A certificate that was checked once is right for that authority and plan, and for no other one."""

import pytest
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.errors import EnrolmentError
from hushrec_server.certificates import checked_certificate

AUTHORITY, OTHER = AuthorityKey(b"a" * 32), AuthorityKey(b"o" * 32)
PLAN, NAME = "ab" * 32, "cd" * 16


def test_what_is_kept_of_a_right_certificate_lets_no_wrong_one_in() -> None:
    identity = Identity(b"i" * 32).public()
    data = AUTHORITY.certify(PLAN, NAME, identity)
    for _ in range(2):
        found = checked_certificate(data, AUTHORITY.public(), PLAN)
        assert (found.plan_id, found.pseudonym, found.identity) == (PLAN, NAME, identity)
    wrong = [
        (data, OTHER.public(), PLAN),
        (data, AUTHORITY.public(), "cd" * 32),
        (data[:-1] + bytes([data[-1] ^ 1]), AUTHORITY.public(), PLAN),
        (b"", AUTHORITY.public(), PLAN),
    ]
    for arguments in wrong * 2:
        with pytest.raises(EnrolmentError):
            checked_certificate(*arguments)
