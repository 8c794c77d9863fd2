"""Sign the server's envelope keys where the plan key is: the first set, and the one after it."""

from pathlib import Path

import msgspec
from hushrec.messages import SignedDocument
from hushrec_privacy.envelope import KeySet, ServerKey, rotated, verified_key_set
from hushrec_privacy.errors import ConfigError, EnvelopeError
from hushrec_privacy.plans.signing import PlanKey
from hushrec_privacy.server_names import checked_server_name

from hushrec_server.data_folder import read_signed

__all__ = ["next_key_set", "signed_key_set"]


def next_key_set(
    public: bytes,
    *,
    server: str,
    at_s: int,
    lifetime_s: int,
    before: tuple[Path, bytes] | None = None,
    overlap_s: int = 0,
) -> KeySet:
    """The first key set of a server, or the one that follows.

    Args:
        public: The new envelope key, 1,216 bytes.
        server: The server's name.
        at_s: Now, seconds since 1970-01-01 UTC.
        lifetime_s: Of the new key.
        before: The file of the set in use, and the plan key's public half that signed it.
        overlap_s: How long earlier keys stay in force at most.

    Raises:
        ConfigError: The name is none that a server may have, or the earlier set cannot be read, is of another server,
            or was signed by another key.
    """
    checked_server_name(server)
    if before is None:
        return KeySet(1, server, (ServerKey(public, at_s, at_s + lifetime_s),))
    path, plan_key = before
    signed = read_signed(path)
    try:
        earlier = KeySet.decode(signed.data)
    except EnvelopeError as error:
        raise ConfigError(f"{path}: {error.message}") from error
    if earlier.server != server:
        raise ConfigError(f"{path}: holds the keys of another server, {earlier.server!r} and not {server!r}")
    began = earlier.keys[-1].not_before  # a set whose keys are over is followed all the same
    try:
        verified_key_set(signed.data, signed.signature, plan_key, server=server, least_serial=1, at_s=began)
    except EnvelopeError as error:
        raise ConfigError(f"{path}: was not signed by this plan key; give the one that signed it") from error
    return rotated(earlier, public, at_s=at_s, lifetime_s=lifetime_s, overlap_s=overlap_s)


def signed_key_set(key: PlanKey, key_set: KeySet) -> bytes:
    """The content of keys.json."""
    return msgspec.json.encode(SignedDocument(key_set.encode(), key.sign_key_set(key_set))) + b"\n"
