"""Opacus' optimizer with noise from the secure keystream instead of torch's generator.

`DPOptimizerFastGradientClipping` takes a sum that is clipped already, adds noise of standard deviation z times C,
divides by the *expected* batch size and calls the optimizer below. torch's generator keeps 32 bits of a seed and
Opacus' secure mode needs a package that is no longer made, so the noise is drawn here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.float_gaussian import float_gaussian
from hushrec_privacy.randomness import OsRandom
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor, nn

__all__ = ["PrivateOptimizer"]


class PrivateOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]  # opacus has no types
    """Turns clipped sums into noised steps.

    Args:
        optimizer: What is called with the noised mean; it sees nothing else of the data.
        noise_multiplier: z, noise over clip norm.
        max_grad_norm: C, what the sums were clipped to.
        expected_batch_size: q N, public; never the size of a real batch.
        random: Secure source.

    Raises:
        ConfigError: A number is not finite, or C or the batch size not above 0, or z below 0.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float,
        random: OsRandom,
    ) -> None:
        for name, value, least in (
            ("noise_multiplier", noise_multiplier, 0.0),
            ("max_grad_norm", max_grad_norm, 1e-30),
            ("expected_batch_size", expected_batch_size, 1e-30),
        ):
            if not least <= value < float("inf"):  # also refuses NaN
                raise ConfigError(f"{name} is {value!r}; it must be a finite number of at least {least:g}")
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
        )
        self._random = random
        self._sums: Mapping[nn.Parameter, Tensor] = {}

    def step_on(self, sums: Mapping[nn.Parameter, Tensor]) -> None:
        """One noised step.

        Args:
            sums: The clipped sum of every parameter that the optimizer has. A sum is used once.

        Raises:
            ConfigError: A parameter has no sum: without one it would get no noise.
        """
        if missing := sum(weight not in sums for weight in self.params):
            raise ConfigError(f"{missing} trained parameters have no clipped sum; pass one for each")
        self.zero_grad(set_to_none=True)
        for weight in self.params:
            weight.grad = sums[weight].to(weight.dtype)  # for Opacus to account for; noise is added to the sum itself
        self._sums = sums
        try:
            self.step()
        finally:
            self._sums = {}
        self.zero_grad(set_to_none=True)

    def add_noise(self) -> None:
        """Draw for every coordinate, whether a user touched it or not."""
        scale = self.noise_multiplier * self.max_grad_norm
        for weight in self.params:
            _once(weight)
            drawn = torch.from_numpy(float_gaussian(self._random, weight.numel(), scale)).view_as(weight)
            exact = self._sums.get(weight, weight.summed_grad)
            weight.grad = (exact.double() + drawn).to(weight.dtype)  # rounded only once it is noised

    def __repr__(self) -> str:
        """Nothing of sums or noise."""
        return "PrivateOptimizer()"


def _once(weight: Any) -> None:
    """Refuse a sum that was noised before: two noised copies of one sum cost twice."""
    from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed

    _check_processed_flag(weight.summed_grad)
    _mark_as_processed(weight.summed_grad)
