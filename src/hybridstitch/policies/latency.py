"""What a plan costs, before anything is drawn: Eq. 3-8 of the paper, a count of operations, and memory.

All costs of Eq. 3-8 are in any one unit (seconds, or dense steps of the large model). `s = L_s / L_l` is a small step
and `h(M)` a masked one, both in dense steps of the large model; `f(M)` is the share of ‖v_L − v_S‖² inside the mask.
What was measured is `measure.price`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides a transformer's cost.

    Attributes:
        width: D, heads times head width.
        layers: joint blocks.
        image_tokens: N.
        text_tokens: T.
        dual_layers: blocks with a second, image-only attention.
        cross_tokens: text or picture tokens that every block attends to by cross-attention, beside its own tokens.
        cross_width: width of these tokens; 0 for D.
        mlp: hidden width of the feed-forward over D.
        held: of tensors D wide, how many a dense step holds at its fullest moment for each token of the picture, beside
            the two hidden layers of a feed-forward, and for each of text.
        rounded: how many more where the models are in half precision, as parts of a step stay in float32.
    """

    width: int
    layers: int
    image_tokens: int
    text_tokens: int
    dual_layers: int = 0
    cross_tokens: int = 0
    cross_width: int = 0
    mlp: float = 4
    held: tuple[float, float] = (5, 3)
    rounded: tuple[float, float] = (0, 0)

    def flops(self, drawn: int | None = None, *, text: str = "fresh") -> int:
        """Floating-point operations of one row: `(8 + 4·mlp)·D²·n + 4·n·m·D` a block, n computed, m attended to.

        Cross-attention to c tokens of width E adds `4·D²·n + 4·D·E·c + 4·n·c·D`.

        Args:
            drawn: K, image tokens drawn in a masked step; None draws all N.
            text: "cached" computes no text token.
        """
        image = self.image_tokens if drawn is None else drawn
        computed = image + (self.text_tokens if text == "fresh" else 0)
        attended = self.image_tokens + self.text_tokens
        joint = round((8 + 4 * self.mlp) * self.width**2) * computed + 4 * computed * attended * self.width
        if self.cross_tokens:
            joint += 4 * self.width**2 * computed + 4 * computed * self.cross_tokens * self.width
            joint += 4 * self.width * (self.cross_width or self.width) * self.cross_tokens
        dual = 8 * self.width**2 * image + 4 * image * self.image_tokens * self.width
        return self.layers * joint + self.dual_layers * dual

    def kv_bytes(self, *, images: int = 1, branches: int = 2, element_bytes: int = 2) -> int:
        """Keys and values kept while masking: two tensors a layer over image and text tokens.

        Args:
            images: B.
            branches: 2 with guidance.
            element_bytes: 2 for bf16 and fp16, 4 for fp32.
        """
        tokens = self.layers * (self.image_tokens + self.text_tokens) + self.dual_layers * self.image_tokens
        return 2 * tokens * self.width * images * branches * element_bytes

    def activation_bytes(self, *, images: int = 1, branches: int = 2, element_bytes: int = 2) -> int:
        """The most that a dense step holds at once beside weights, keys and values.

        That is `(2·mlp + held)·N` tokens of the picture and `held·T` of text, D wide; one more tensor of the picture in
        blocks with a second attention.

        Args:
            images: B.
            branches: 2 with guidance.
            element_bytes: of the compute dtype.
        """
        more = self.rounded if element_bytes < 4 else (0, 0)
        image, text = (held + added for held, added in zip(self.held, more, strict=True))
        image += 2 * self.mlp + bool(self.dual_layers)
        tokens = round(image * self.image_tokens + text * (self.text_tokens + self.cross_tokens))
        return tokens * self.width * images * branches * element_bytes


def large_cost(switches: Sequence[int], masks: Sequence[float], large: float) -> float:
    """Eq. 3: `Σ (T_i − T_{i−1})·L_l·M_{i−1}` with `T_0 = 0`, `M_0 = 1`.

    Args:
        switches: T_1 … T_{n+1}, the steps at which stages 1 … n+1 begin.
        masks: M_1 … M_n.
        large: L_l.

    Raises:
        ValueError: not one more switch than masks.
    """
    if len(switches) != len(masks) + 1:
        raise ValueError(f"{len(masks)} mask(s) need {len(masks) + 1} switches, {len(switches)} were given")
    bounds, ratios = [0, *switches], [1.0, *masks]
    return sum((b - a) * large * m for a, b, m in zip(bounds, bounds[1:], ratios, strict=False))


def small_cost(switches: Sequence[int], steps: int, small: float) -> float:
    """Eq. 4: `L_s·(T − T_1)`.

    Args:
        switches: T_1 … T_{n+1}.
        steps: T.
        small: L_s.
    """
    return small * (steps - switches[0])


def saving(switches: Sequence[int], masks: Sequence[float], steps: int, *, large: float, small: float) -> float:
    """Eq. 5, with the `T` that the print leaves out: `L_l·T − L_large − L_small`."""
    return large * steps - large_cost(switches, masks, large) - small_cost(switches, steps, small)


def largest_useful_mask(small: float) -> float:
    """Eq. 7: a hybrid step costs less than a dense one only for `M_1 < 1 − L_s / L_l`.

    Args:
        small: s, a small step in dense large steps.
    """
    return 1.0 - small


def break_even(masked: float, small: float) -> float:
    """The `f(M)` above which a hybrid step beats the same time spent on whole large steps: `h(M) / (1 − s)`.

    Args:
        masked: h(M).
        small: s.
    """
    return float("inf") if small >= 1 else masked / (1.0 - small)
