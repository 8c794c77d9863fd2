"""How a new bundle reaches a device: downloaded verified, tried out, and made current at once; needs the extra `fleet`.

    updater = Updater("https://shop.example/releases", folder, root=ROOT, shipped="shop.hush")
    recommender = Recommender.open(updater.current())
    ...
    updater.step(budget_s=2.0)   # in a thread of the app's own, now and then

fetcher      HTTP with a deadline that no server can stretch
source       the shop's release repository, verified after The Update Framework (TUF)
store        blobs, assembled releases and the pointer to the current one, whole after any kill
self_test    whether a new release works on this machine
updater      the order of things
"""

from hushrec.updates.updater import Candidate, Progress, Updater

__all__ = ["Candidate", "Progress", "Updater"]
