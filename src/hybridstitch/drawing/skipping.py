"""Skip-layer guidance (SPEC §5): a second, conditional call of the large model without some of its layers."""

from torch import Tensor

from .call import Call, Models
from .canvas import over
from .clock import mark
from .groups import Tokens


def draw_skipping(call: Call, main: Call, tokens: Tokens, models: Models) -> Tensor:
    """Skip-layer guidance (SPEC §5): the large model without some layers where it drew this step, else no difference.

    Args:
        call: the second, conditional call (B rows), `skip_layers` among its inputs.
        main: the step's first call, drawn.
        tokens: see `groups.Tokens`.
        models: the pair.

    Returns:
        `where(drawn by L this step, L(skip_layers), v_text)`, (B, …).
    """
    assert main.prediction is not None
    text = main.prediction[-len(call.latent) :]  # the conditional branch comes last
    images = tuple(i for i, plan in enumerate(main.plans) if any(s.model == "L" for s in plan.strokes))
    if not images:
        return text
    start = mark(call.latent.device)
    drawn, _ = models.large.dense(call.take(call.rows(images)))
    call.spans.append((images, start, mark(call.latent.device)))
    everywhere = [any(s.model == "L" and s.region.everywhere for s in main.plans[i].strokes) for i in images]
    if all(everywhere) and len(images) == call.images:
        return drawn
    where = [None if whole else tokens[image] for image, whole in zip(images, everywhere, strict=True)]
    return over(text, drawn, images, where, models.large.layout)
