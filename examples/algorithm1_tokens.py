"""Algorithm 1, as in `algorithm1.py`, on FLUX.1's packed pictures (1, N, C) and Wan's videos (1, C, F, H, W)."""

from math import ceil, floor

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb


class LargeModel:
    """A transformer that also draws the tokens of a mask alone, joining keys and values kept from before."""

    def __init__(self, model):
        self.model, self.mask, self.kept, self.branch, self.text = model, None, {}, 0, 0
        model.proj_out.register_forward_hook(lambda _, __, x: self.join(x, x.new_zeros(())))
        if type(model).__name__.startswith("Flux"):
            model.x_embedder.register_forward_hook(lambda _, __, x: self.take(x, 1))
            model.pos_embed.register_forward_hook(lambda _, __, table: [self.take(y, 0, self.text) for y in table])
            model.set_attn_processor(dict.fromkeys(model.attn_processors, self.attend_flux))
        else:
            model.patch_embedding.register_forward_hook(lambda _, __, x: self.take(x.flatten(2), 2)[:, :, None, None])
            model.rope.register_forward_hook(lambda _, __, table: [self.take(y, 1) for y in table])
            for block in model.blocks:
                block.attn1.set_processor(self.attend_wan)

    def __call__(self, x, branch, given, mask=None):
        self.mask, self.branch = mask, branch  # (N,) of bool, or None: all tokens
        self.text = given["txt_ids"].shape[0] if "txt_ids" in given else 0  # tokens before the picture's
        return self.model(x, return_dict=False, **given)[0]

    def take(self, y, axis, text=0):  # N → K, behind text
        if self.mask is None:
            return y
        return y.index_select(axis, torch.cat([torch.arange(text), text + self.mask.nonzero()[:, 0]]))

    def join(self, new, old):  # (…, K, width) → (…, N, width)
        if self.mask is None:
            return new
        return old.expand(*new.shape[:-2], len(self.mask), new.shape[-1]).masked_scatter(self.mask[:, None], new)

    def mix(self, attn, q, k, v):  # (1, tokens, heads, width of a head) → (1, tokens, width)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        (text_k, k), (text_v, v) = (y.tensor_split([self.text], 2) for y in (k, v))
        prev_k, prev_v = self.kept.get((attn, self.branch), (k, v))
        k, v = self.kept[attn, self.branch] = self.join(k, prev_k), self.join(v, prev_v)
        k, v = torch.cat([text_k, k], 2), torch.cat([text_v, v], 2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def attend_flux(self, attn, x, text, mask, table):
        def heads(x, *projections):
            return (project(x).unflatten(-1, (attn.heads, -1)) for project in projections)

        q, k, v = heads(x, attn.to_q, attn.to_k, attn.to_v)
        q, k = attn.norm_q(q), attn.norm_k(k)
        if text is not None:  # beside the picture in double blocks; in single ones with it already
            text_q, text_k, text_v = heads(text, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            q, k = torch.cat([attn.norm_added_q(text_q), q], 1), torch.cat([attn.norm_added_k(text_k), k], 1)
            v = torch.cat([text_v, v], 1)
        q, k = (apply_rotary_emb(y, table, sequence_dim=1) for y in (q, k))
        x = self.mix(attn, q, k, v)
        words, picture = (y.contiguous() for y in x.tensor_split([self.text], 1))
        return x if text is None else (attn.to_out[0](picture), attn.to_add_out(words))

    def attend_wan(self, attn, x, text, mask, table):
        def turned(y):
            (real, imaginary), cos, sin = y.unflatten(-1, (-1, 2)).unbind(-1), table[0][..., 0::2], table[1][..., 1::2]
            return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], -1).flatten(-2).type_as(y)

        projected = attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(x)), attn.to_v(x)
        q, k, v = (y.unflatten(-1, (attn.heads, -1)) for y in projected)
        return attn.to_out[0](self.mix(attn, turned(q), turned(k), v))


@torch.no_grad()
def algorithm1(large, small, scheduler, x, words, unit, g, masks, tau, min_large=0.1, patience=1, patch=(1, 2, 2)):
    """Noise x, inputs of one call or two [cond, uncond], a unit of time → x; stage and mask of each step; D from 1."""
    T, stage, D, score, d, decisions = len(scheduler.timesteps), 0, [], torch.empty(0), x, []
    for i, t in enumerate(scheduler.timesteps):
        if stage <= len(masks) and len(D) >= patience and max(D[-patience:]) < tau[stage]:
            stage += stage > 0 or i >= max(2, ceil(min_large * T))
        mask = None
        if 0 < stage <= len(masks):
            K = min(max(floor(masks[stage - 1] * len(score) + 0.5), 1), len(score))
            mask = torch.zeros_like(score).bool().index_fill(0, score.argsort(descending=True, stable=True)[:K], True)
        decisions.append((stage, mask))
        noise = []
        for branch, inputs in enumerate(words):
            given = {**inputs, "timestep": t.expand(1) / unit}
            noise.append(large(x, branch, given) if stage == 0 else small(x, return_dict=False, **given)[0])
            if mask is not None:
                inside = mask[:, None]  # (N, 1), or (F, H, W)
                if x.ndim > 3:
                    grid = [size // side for size, side in zip(x.shape[2:], patch, strict=True)]
                    inside = torch.kron(mask.view(grid).float(), torch.ones(patch)).bool()
                noise[branch] = torch.where(inside, large(x, branch, given, mask), noise[branch])
        v = noise[0] if len(noise) == 1 else noise[1] + g * (noise[0] - noise[1])
        sigma, next_sigma = scheduler.sigmas[i : i + 2]
        prev_d, d, x = d, x - sigma * v, x + (next_sigma - sigma) * v  # Eq. 10; the scheduler's step
        if i > 0:
            sizes = ((d - prev_d).abs(), d.abs())
            score, size = (y.mean(2)[0] if x.ndim == 3 else F.avg_pool3d(y.mean(1), patch).flatten() for y in sizes)
            D.append((score / size).mean().item())  # Eq. 9
    return x, decisions, D


if __name__ == "__main__":
    torch.manual_seed(0)
    large, small = (FluxTransformer2DModel(1, 16, 16, 1, 1, 16, heads, 24, 20, False, (4, 6, 6)) for heads in (4, 2))
    words = {"encoder_hidden_states": torch.randn(1, 7, 24), "pooled_projections": torch.randn(1, 20)}
    words |= {"img_ids": torch.cartesian_prod(*map(torch.arange, (1, 8, 6))), "txt_ids": torch.zeros(7, 3)}
    euler, masks, tau = FlowMatchEulerDiscreteScheduler(shift=3.0), (0.3, 0.1), (0.5, 0.3, 0.1)
    euler.set_timesteps(12)
    x, decisions, D = algorithm1(
        LargeModel(large), small, euler, torch.randn(1, 48, 16), [words], 1000, 1.0, masks, tau
    )
    print("stages", [stage for stage, _ in decisions], "D", [round(value, 3) for value in D])
