"""The guarantees of the mechanisms that hushrec uses, each with its unit, its trust and all it assumes."""

import math

from hushrec_privacy.accounting.gaussian import mu_of_participations
from hushrec_privacy.accounting.guarantee import Guarantee
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss, SampledSteps
from hushrec_privacy.accounting.toeplitz import sensitivity_squared

__all__ = [
    "CENTRAL_TRUST",
    "CURIOUS_TRUST",
    "DEVICE",
    "LOCAL_TRUST",
    "ROUNDS_TRUST",
    "SESSION",
    "USER",
    "banded_guarantee",
    "banded_mu",
    "gaussian_guarantee",
    "local_guarantee",
    "poisson_guarantee",
]

DEVICE = "one enrolled device (one account), over every round and every published model"
USER = "one user with all of one user's events, over the whole training run"
ROUNDS_TRUST = "the server adds the noise and keeps its state secret; secure aggregation hides single updates from it"
CURIOUS_TRUST = (
    "the server adds the noise, keeps its state secret and follows the protocol; secure aggregation hides single "
    "updates from a server that only looks"
)
LOCAL_TRUST = "nobody but this device, which adds the noise itself; the server sees what it sends, noise included"
SESSION = "one session: the log has no users, and who has several sessions is protected that much less"
CENTRAL_TRUST = "whoever trains sees the log; the guarantee is towards those who see the published model"

_ROUNDS = (
    "each update is clipped to the stated L2 norm before it is summed",
    "who takes part and when is not protected, and must not depend on behaviour",
    "no amplification by sampling is claimed",
    "the noise sizes are fixed beforehand; updates may depend on everything published earlier",
)


def gaussian_guarantee(noise_multiplier: float, participations: int, delta: float) -> Guarantee:
    """Independent Gaussian noise in every round; a device takes part k times at most.

    Args:
        noise_multiplier: z, standard deviation of the noise over the clip norm.
        participations: k.
        delta: 0 to 1.

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> round(gaussian_guarantee(8.35, 2, 1e-10).epsilon, 6)
    0.99355
    """
    loss = PrivacyLoss(mu_of_participations(noise_multiplier, participations))
    return Guarantee(
        epsilon=loss.epsilon(delta),
        delta=delta,
        unit=DEVICE,
        adjacency="zero-out",
        mechanism=f"Gaussian, noise multiplier {noise_multiplier:g}, {participations} participations, exact curve",
        trust=ROUNDS_TRUST,
        assumptions=(f"a device takes part at most {participations} times", *_ROUNDS),
        loss=loss,
    )


def local_guarantee(noise_multiplier: float, releases: int, delta: float) -> Guarantee:
    """Vectors that a device noises itself and sends one by one, k at most.

    Args:
        noise_multiplier: z, standard deviation of the noise over the distance of any two vectors, twice the clip norm.
        releases: k.
        delta: 0 to 1.

    Raises:
        ConfigError: An argument is NaN or out of range.
    """
    loss = PrivacyLoss(mu_of_participations(noise_multiplier, releases))
    return Guarantee(
        epsilon=loss.epsilon(delta),
        delta=delta,
        unit=DEVICE,
        adjacency="zero-out",
        mechanism=f"local Gaussian, noise multiplier {noise_multiplier:g}, {releases} releases, exact curve",
        trust=LOCAL_TRUST,
        assumptions=(
            f"a device sends it at most {releases} times, each time with new noise",
            "it holds between any two vectors that the device might have sent, which is more than zero-out asks",
            "when something is sent is not protected, and must not depend on behaviour",
        ),
        loss=loss,
    )


def banded_mu(
    rounds: int, bands: int, min_separation: int, participations: int, noise_multiplier: float
) -> tuple[float, float]:
    """Separation mu of banded square-root Toeplitz noise, and its squared sensitivity.

    Args:
        rounds: T.
        bands: h.
        min_separation: b.
        participations: k.
        noise_multiplier: z, standard deviation of the uncorrelated noise Z over the clip norm, c_0 being 1.

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> mu, squared = banded_mu(2000, 200, 200, 10, 10.0)
    >>> round(mu, 5), round(squared, 4)
    (0.52463, 27.5238)
    """
    squared = sensitivity_squared(rounds, bands, min_separation, participations)
    return math.sqrt(squared) * mu_of_participations(noise_multiplier, 1) if squared else 0.0, squared


def banded_guarantee(
    rounds: int, bands: int, min_separation: int, participations: int, noise_multiplier: float, delta: float
) -> Guarantee:
    """Noise correlated over rounds by a banded square-root Toeplitz matrix.

    Args:
        rounds: T, fixed beforehand.
        bands: h.
        min_separation: b, rounds from one participation of a device to its next.
        participations: k.
        noise_multiplier: z, relative to the clip norm, before the sensitivity; c_0 is 1.
        delta: 0 to 1.

    Raises:
        ConfigError: An argument is NaN or out of range, or k does not fit into T.

    >>> round(banded_guarantee(2000, 200, 200, 10, 10.0, 1e-6).epsilon, 4)
    2.3765
    """
    loss = PrivacyLoss(banded_mu(rounds, bands, min_separation, participations, noise_multiplier)[0])
    return Guarantee(
        epsilon=loss.epsilon(delta),
        delta=delta,
        unit=DEVICE,
        adjacency="zero-out",
        mechanism=(
            f"banded square-root Toeplitz Gaussian, {bands} bands, {rounds} rounds, noise multiplier "
            f"{noise_multiplier:g}, exact curve"
        ),
        trust=ROUNDS_TRUST,
        assumptions=(
            f"a device takes part at most {participations} times, at least {min_separation} rounds apart",
            f"the run has at most {rounds} rounds",
            "the noise state is never reused, lost or published",
            *_ROUNDS,
        ),
        loss=loss,
    )


def poisson_guarantee(
    sampling_rate: float, steps: int, noise_multiplier: float, delta: float, *, released_mu: float = 0.0
) -> Guarantee:
    """Central training over Poisson-sampled batches.

    Args:
        sampling_rate: q.
        steps: T.
        noise_multiplier: z, standard deviation of the noise over the clip norm.
        delta: 0 to 1.
        released_mu: Separation of what Gaussian noise over all users released beside the steps.

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> round(poisson_guarantee(1.0, 4, 2.0, 1e-6).epsilon, 3)
    4.887
    """
    loss = PrivacyLoss(released_mu, (SampledSteps(sampling_rate, noise_multiplier, steps),))
    return Guarantee(
        epsilon=loss.epsilon(delta),
        delta=delta,
        unit=USER,
        adjacency="add-or-remove",
        mechanism=(
            f"Poisson-sampled Gaussian, sampling rate {sampling_rate:g}, {steps} steps, noise multiplier "
            f"{noise_multiplier:g}, privacy loss distribution"
            + (f"; Gaussian releases of counts, mu {released_mu:.4g}, composed exactly" if released_mu else "")
        ),
        trust=CENTRAL_TRUST,
        assumptions=(
            "central training only: each step takes every user independently with the stated rate (true Poisson "
            "sampling), and who was taken stays secret",
            "each user's gradient is clipped to the stated L2 norm before it is summed",
            *(("each user's counts are scaled to a fixed L2 norm before they are summed",) if released_mu else ()),
            "the number of users is public; nothing else of the log reaches what is published",
        ),
        loss=loss,
    )
