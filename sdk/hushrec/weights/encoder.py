"""The encoder's float32 weights as plain NumPy arrays: what training hands to whoever makes a bundle.

The mathematics (D = 64 width, heads of 32, H heads and F feed-forward channels of one layer, both free per layer):

    e  = 8 E[item] + behaviors[behavior];  x = e
    n  = LayerNorm(x; norm1);  q, _, _, g = split(n @ w1);  _, k, v, _ = split(e @ w1)
    a  = softmax(q kᵀ / √32 + bias[h, i − j]), causal;      x += sigmoid(g) · (concat(a v) @ wo)
    n  = LayerNorm(x; norm2);  a, b, g = split(n @ w2);     x += sigmoid(g) · ((silu(a) · b) @ w3)
    h  = LayerNorm(x_last; norm);  u = h + (h @ adapter_down) @ adapter_up;  user = scale · u / |u|

Every layer looks at the events e as they came in and not at what earlier layers made of them (hops: Sukhbaatar et al.
2015, arXiv:1503.08895, section 2.2). So whoever wants the last user vector only computes the last position only.

Holds no item table and knows neither torch nor onnx.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

__all__ = [
    "ADAPTER_RANK",
    "HEAD_WIDTH",
    "INPUT_SCALE",
    "LAYER_FIELDS",
    "NORM_EPSILON",
    "WIDTH",
    "EncoderWeights",
    "LayerWeights",
]

WIDTH = 64
HEAD_WIDTH = 32
ADAPTER_RANK = 16
INPUT_SCALE = 8.0  # unit-length item vectors enter the residual stream times this
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class LayerWeights:
    """One Transformer layer, float32.

    Attributes:
        norm1_scale: Shape (64,).
        norm1_bias: Shape (64,).
        w1: Query, key, value, gate, in this order; shape (64, 3·32·H + 64). Keys and values are of events.
        wo: Shape (32·H, 64).
        bias: Relative position bias; entry [h, d] is for a key d events before the query; shape (H, Lmax).
        norm2_scale: Shape (64,).
        norm2_bias: Shape (64,).
        w2: SiLU half, linear half, gate, in this order; shape (64, 2·F + 64).
        w3: Shape (F, 64).
    """

    norm1_scale: NDArray[np.float32]
    norm1_bias: NDArray[np.float32]
    w1: NDArray[np.float32]
    wo: NDArray[np.float32]
    bias: NDArray[np.float32]
    norm2_scale: NDArray[np.float32]
    norm2_bias: NDArray[np.float32]
    w2: NDArray[np.float32]
    w3: NDArray[np.float32]

    @property
    def heads(self) -> int:
        """H, the number of attention heads."""
        return int(self.bias.shape[0])

    @property
    def channels(self) -> int:
        """F, the inner width of the feed-forward branch."""
        return int(self.w3.shape[0])

    def shapes(self, max_history: int) -> dict[str, tuple[int, ...]]:
        """Name the shape that every array must have, from `heads`, `channels` and Lmax."""
        inner, channels = HEAD_WIDTH * self.heads, self.channels
        return {
            "norm1_scale": (WIDTH,),
            "norm1_bias": (WIDTH,),
            "w1": (WIDTH, 3 * inner + WIDTH),
            "wo": (inner, WIDTH),
            "bias": (self.heads, max_history),
            "norm2_scale": (WIDTH,),
            "norm2_bias": (WIDTH,),
            "w2": (WIDTH, 2 * channels + WIDTH),
            "w3": (channels, WIDTH),
        }


LAYER_FIELDS = tuple(field.name for field in fields(LayerWeights))
_AFTER_LAYERS = ("norm_scale", "norm_bias", "adapter_down", "adapter_up", "scale")


@dataclass(frozen=True)
class EncoderWeights:
    """All of the encoder except the item table, float32.

    Attributes:
        layers: One or two layers.
        norm_scale: Shape (64,).
        norm_bias: Shape (64,).
        adapter_down: Shape (64, 16).
        adapter_up: Shape (16, 64); zeros make the adapter the identity.
        scale: Length of every user vector: the factor on cosine scores.
        behaviors: One row a behaviour, shape (behaviours, 64); None if the data has only one behaviour.

    Raises:
        ConfigError: A shape or dtype is wrong, or a value is not finite; names the array.
    """

    layers: tuple[LayerWeights, ...]
    norm_scale: NDArray[np.float32]
    norm_bias: NDArray[np.float32]
    adapter_down: NDArray[np.float32]
    adapter_up: NDArray[np.float32]
    scale: float
    behaviors: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("the encoder has no layers; it needs one or two")
        for name, array, shape in self._expected():
            if array.shape != shape or array.dtype != np.float32:
                raise ConfigError(f"{name} is {array.dtype} {array.shape}; it must be float32 {shape}")
            if not np.isfinite(array).all():
                raise ConfigError(f"{name} holds NaN or infinity; export weights of a run that converged")

    @property
    def max_history(self) -> int:
        """Lmax, the longest history that the position bias covers."""
        return int(self.layers[0].bias.shape[1])

    @property
    def parameters(self) -> int:
        """Number of trained values, without the item table."""
        return 1 + sum(array.size for _, array, _ in self._expected())

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All trained values by name, layer by layer; `scale` has shape (1,)."""
        found = {
            f"{number}.{name}": getattr(layer, name)
            for number, layer in enumerate(self.layers)
            for name in layer.shapes(self.max_history)
        }
        rest = {name: getattr(self, name) for name in _AFTER_LAYERS}
        rest["scale"] = np.full(1, self.scale, np.float32)
        return {**found, **rest, **({} if self.behaviors is None else {"behavior_rows": self.behaviors})}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float32]]) -> "EncoderWeights":
        """Undo `arrays`.

        Raises:
            ConfigError: One is missing, or has a wrong shape or dtype, or a value that is not finite.
        """
        layers = 1 + max((int(name.split(".")[0]) for name in arrays if name[0].isdigit()), default=-1)
        try:
            return cls(
                tuple(LayerWeights(**{f: arrays[f"{n}.{f}"] for f in LAYER_FIELDS}) for n in range(layers)),
                **{name: arrays[name] for name in _AFTER_LAYERS if name != "scale"},
                scale=float(arrays["scale"][0]),
                behaviors=arrays.get("behavior_rows"),
            )
        except KeyError as error:
            raise ConfigError(f"the encoder's array {error} is missing; make the bundle again") from error

    def _expected(self) -> Iterator[tuple[str, NDArray[np.float32], tuple[int, ...]]]:
        for number, layer in enumerate(self.layers):
            for name, shape in layer.shapes(self.max_history).items():
                yield f"layers[{number}].{name}", getattr(layer, name), shape
        yield "norm_scale", self.norm_scale, (WIDTH,)
        yield "norm_bias", self.norm_bias, (WIDTH,)
        yield "adapter_down", self.adapter_down, (WIDTH, ADAPTER_RANK)
        yield "adapter_up", self.adapter_up, (ADAPTER_RANK, WIDTH)
        if self.behaviors is not None:
            yield "behaviors", self.behaviors, (len(self.behaviors), WIDTH)
