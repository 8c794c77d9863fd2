"""What noise is worth: from sizes and counts to epsilon and delta, and back.

    gaussian    the exact curve of Gaussian noise
    zcdp        rho to (epsilon, delta): exact for Gaussian noise, a bound for any mechanism
    toeplitz    sensitivity and error of noise correlated over rounds
    sampled     Poisson-sampled training
    privacy_loss   what several releases cost together; `tilted` and `step_loss` compute it where steps are sampled
    discrete    what integer noise is worth against the Gaussian curve
    guarantee   one statement with all it depends on
    claims      the statements that hushrec makes

Pure functions. All round against us: an epsilon or delta is never below the true one, a rho or mu that is allowed never
above it. NaN and negative input raise `ConfigError`; no result is NaN or negative.
"""

from hushrec_privacy.accounting.claims import banded_guarantee, gaussian_guarantee, poisson_guarantee
from hushrec_privacy.accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from hushrec_privacy.accounting.guarantee import Guarantee, compose
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss, SampledSteps
from hushrec_privacy.accounting.sampled import poisson_delta, poisson_epsilon, poisson_noise_multiplier
from hushrec_privacy.accounting.toeplitz import prefix_error, sensitivity_squared
from hushrec_privacy.accounting.zcdp import (
    gaussian_rho,
    gaussian_rho_delta,
    gaussian_rho_epsilon,
    rho_of_gaussian_epsilon,
    rho_of_zcdp_epsilon,
    zcdp_delta,
    zcdp_epsilon,
)

__all__ = [
    "Guarantee",
    "PrivacyLoss",
    "SampledSteps",
    "banded_guarantee",
    "compose",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_guarantee",
    "gaussian_mu",
    "gaussian_rho",
    "gaussian_rho_delta",
    "gaussian_rho_epsilon",
    "poisson_delta",
    "poisson_epsilon",
    "poisson_guarantee",
    "poisson_noise_multiplier",
    "prefix_error",
    "rho_of_gaussian_epsilon",
    "rho_of_zcdp_epsilon",
    "sensitivity_squared",
    "zcdp_delta",
    "zcdp_epsilon",
]
