"""Masks that save nothing: Eq. 7, `M < 1 − L_s / L_l`, by operations at the size that the large model was made for."""

from typing import Any

from ..families.known import facts_of, known_name
from ..policies.latency import largest_useful_mask
from ..policies.methods import HybridStitch, Schedule
from ..policies.policy import Policy
from ..policies.program import segments


def dear_mask(policy: Policy, pipe: Any, large: Any, small: Any, *, calls: int = 1) -> str | None:
    """What to tell of a policy's largest mask, or None where it saves something or nobody can say.

    Args:
        policy: who draws what.
        pipe: the pipeline, for its VAE's scale.
        large, small: the transformers.
        calls: of the small one in the place of one of the large one; 2 where it guides itself.
    """
    masks: tuple[float, ...] = ()
    if isinstance(policy, HybridStitch):
        masks = policy.masks[:1]
    elif isinstance(policy, Schedule):
        masks = tuple(s.ratio for s in segments(policy.program) if s.letter == "H" and s.ratio is not None)
    facts, vae = facts_of(known_name(large)), getattr(pipe, "vae", None)
    if not masks or vae is None or facts is None or not (facts.shape and facts.tokens and facts.native):
        return None
    tokens = facts.tokens(large.config, vae.config, facts.native(large.config, vae.config))
    costs = [facts.shape(model.config, tokens, facts.text).flops() for model in (small, large)]
    ratio = calls * costs[0] / costs[1]
    limit = largest_useful_mask(ratio)
    if max(masks) < limit:
        return None
    guided = " with its two calls" if calls > 1 else ""
    below = f"only cheaper below 1 - {ratio:.2f} = {limit:.2f}" if limit > 0 else "never cheaper"
    return (
        f"a mask of {max(masks)} is not worth it on this pair: a small step costs {ratio:.2f} of a large one{guided} "
        f"(operations at {tokens} tokens), so a hybrid step is {below} (Eq. 7)"
    )
