"""The release repository: what devices update from, signed after The Update Framework (TUF), as plain files on disk.

keys         the secret keys of the roles, in files that can live apart
roles        how long each role's metadata is valid, what root names, and reading it all back verified
files        writing whole files, blobs named by content, and tidying up
writer       signing and writing the next versions of roles
repository   create, publish, roll back, refresh, rotate, prune

`metadata/` and `targets/` of the folder are served as they are; nothing in them is secret.
"""

from hushrec_server.releases.keys import ReleaseKey, ReleaseKeys
from hushrec_server.releases.repository import Refreshed, ReleaseRepository
from hushrec_server.releases.roles import Lifetimes

__all__ = ["Lifetimes", "Refreshed", "ReleaseKey", "ReleaseKeys", "ReleaseRepository"]
