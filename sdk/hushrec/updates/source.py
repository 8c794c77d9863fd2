"""The shop's release repository as a device sees it: nothing is believed that TUF has not verified.

python-tuf follows the client workflow of the TUF specification 1.0, section 5. What it keeps in its folder is what
stops a server from going back to older metadata; timestamps stop one from holding newer ones back. Knows of releases
and blobs, of nothing that happens with them.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from hushrec_privacy.errors import FleetError, ReleaseError
from tuf.api import exceptions as tuf
from tuf.ngclient import TargetFile, Updater  # type: ignore[attr-defined]  # exported there without saying so

from hushrec.releases import CANDIDATE, MAX_RELEASE_BYTES, NEWEST, Release, ReleaseFile, blob_target
from hushrec.updates.fetcher import BoundedFetcher

__all__ = ["Source"]

RETRY_S = 300.0
"""When an unreachable server is worth another try."""


class Source:
    """One look at a repository, at one moment; a new look is a new source.

    Args:
        url: Address of the repository.
        folder: Where verified metadata is kept.
        root: Root metadata that is trusted from the start.
        at_s: What time it is, in seconds since 1970-01-01 UTC.
        clock: Seconds, monotonic.

    Raises:
        ReleaseError: The trusted root is none, or the folder cannot be written.

    Attributes:
        fetcher: Set its `deadline` and, if anything can end it, its `stop` before each call.
    """

    def __init__(self, url: str, folder: Path, root: bytes, at_s: float, clock: Callable[[], float]) -> None:
        self._url, self.fetcher = url, BoundedFetcher(clock)
        with _explained():
            for left in folder.glob("tmp*"):  # of a killed python-tuf
                left.unlink()
            self._tuf = Updater(
                str(folder),
                f"{self._url}/metadata/",
                fetcher=self.fetcher,
                bootstrap=root,
            )
        trusted = self._tuf._trusted_set  # the one way to tell python-tuf the time
        if not isinstance(trusted.reference_time, datetime):
            raise ReleaseError("this version of python-tuf keeps its time elsewhere; update hushrec")
        trusted.reference_time = datetime.fromtimestamp(at_s, UTC)

    def newest(self) -> Release | None:
        """The release that the shop wants devices to have; None: there is none yet.

        Raises:
            FleetError: The server cannot be reached, or is too slow.
            ReleaseError: What it says is not authentic, older than what was seen before, or past its time.
        """
        with _explained():
            self._tuf.refresh()
            return self._release(NEWEST)

    def candidate(self) -> Release | None:
        """The release that is not out but to be compared, by the metadata that `newest` saw; None: there is none.

        Raises:
            FleetError: As for `newest`.
            ReleaseError: As for `newest`.
        """
        with _explained():
            return self._release(CANDIDATE)

    def has_candidate(self) -> bool:
        """Whether there is one, by the metadata that `newest` saw; asks nobody."""
        with _explained():
            return self._tuf.get_targetinfo(CANDIDATE) is not None

    def download(self, file: ReleaseFile, part: Path, stop: Callable[[], bool]) -> bool:
        """Download one blob, going on where the part ends; what is there after a kill is never believed.

        Args:
            file: Of the release that `newest` or `candidate` gave.
            part: Where it is collected.
            stop: Asked after every piece.

        Returns:
            Whether the part is the whole, verified and on the disk; False: stopped.

        Raises:
            FleetError: The server cannot be reached, or is too slow; the part can be continued.
            ReleaseError: What it sends is not the blob; the part is gone.
        """
        with _explained():
            target = self._tuf.get_targetinfo(blob_target(file.sha256))
            if target is None or target.length != file.size or target.hashes.get("sha256") != file.sha256:
                raise ReleaseError(f"{file.name}: the repository names no such blob; the release is incomplete")
            with part.open("ab") as collected:
                if not self._collect(target, collected.tell(), part, stop):
                    return False
            try:
                with part.open("rb+") as whole:
                    target.verify_length_and_hashes(whole)
                    os.fsync(whole.fileno())
            except tuf.LengthOrHashMismatchError:
                part.unlink()
                raise
        return True

    def _release(self, name: str) -> Release | None:
        target = self._tuf.get_targetinfo(name)
        if target is None:
            return None
        if target.length > MAX_RELEASE_BYTES:
            raise ReleaseError(f"the release has {target.length} bytes; at most {MAX_RELEASE_BYTES} are read")
        data = self.fetcher.download_bytes(self._address(target), target.length)
        target.verify_length_and_hashes(data)
        return Release.decode(data)

    def _collect(self, target: TargetFile, size: int, part: Path, stop: Callable[[], bool]) -> bool:
        if size >= target.length:  # whole, or too long and refused by its hash
            return True
        begin, chunks = self.fetcher.fetch_from(self._address(target), size)
        with contextlib.closing(chunks), part.open("rb+") as file:
            file.truncate(begin)
            file.seek(begin)
            for chunk in chunks:
                if file.tell() + len(chunk) > target.length:
                    part.unlink()
                    raise ReleaseError("the server sends more than the blob has; nothing of it is kept")
                file.write(chunk)
                if stop() and file.tell() < target.length:
                    return False
        return True

    def _address(self, target: TargetFile) -> str:
        """Consistent snapshots: the hash comes before the last part of the name (TUF 1.0, section 6.2)."""
        head, slash, last = target.path.rpartition("/")
        return f"{self._url}/targets/{head}{slash}{target.hashes['sha256']}.{last}"


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn python-tuf's errors into ours: come back later, or do not believe it."""
    try:
        yield
    except tuf.DownloadLengthMismatchError as error:
        raise ReleaseError("the server sends more than its metadata says; nothing of it is kept") from error
    except tuf.SlowRetrievalError as error:
        raise _unreachable("is too slow") from error
    except tuf.DownloadHTTPError as error:
        raise _unreachable(f"answered with status {error.status_code}") from error
    except tuf.DownloadError as error:
        raise _unreachable("cannot be reached") from error
    except tuf.ExpiredMetadataError as error:
        raise ReleaseError(
            f"the release repository shows metadata past its time ({error}): its server is not refreshed, or holds "
            "newer releases back; or the clock of this device is wrong"
        ) from error
    except tuf.BadVersionNumberError as error:
        raise ReleaseError("the release repository went back to older metadata than it showed before") from error
    except tuf.UnsignedMetadataError as error:
        raise ReleaseError("the release repository's metadata is not signed by the keys that count") from error
    except tuf.LengthOrHashMismatchError as error:
        raise ReleaseError(
            "what the server sent is not what the metadata names; it may be damaged on its way"
        ) from error
    except tuf.RepositoryError as error:
        raise ReleaseError(f"the release repository's metadata is malformed ({type(error).__name__})") from error
    except OSError as error:
        raise ReleaseError(
            f"an update cannot be written ({error.strerror}); the last good release stays in use: check the space"
        ) from error


def _unreachable(how: str) -> FleetError:
    return FleetError(f"the release repository {how}; try again later", reason="unreachable", retry_after_s=RETRY_S)
