"""Algorithm 1 of HybridStitch as a plain loop, to be read beside the paper: one image, nothing of the library."""

from math import ceil, floor

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel


class LargeModel:
    """An SD3 transformer that also draws the tokens of a mask alone, joining keys and values kept from before."""

    def __init__(self, model):
        self.model, self.mask, self.kept = model, None, {}
        model.pos_embed.register_forward_hook(lambda _, __, x: x if self.mask is None else x[:, self.mask])
        model.proj_out.register_forward_hook(lambda _, __, x: self.join(x, x.new_zeros(())))
        model.set_attn_processor(dict.fromkeys(model.attn_processors, self.attend))

    def __call__(self, x, text, pooled, t, mask=None):
        self.mask = mask  # (N,) of bool, or None: all tokens
        return self.model(x, text, pooled, t, return_dict=False)[0]

    def join(self, new, old):  # (…, K, width) → (…, N, width)
        if self.mask is None:
            return new
        return old.expand(*new.shape[:-2], len(self.mask), new.shape[-1]).masked_scatter(self.mask[:, None], new)

    def attend(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        def heads(x, norm=None):  # (branches, tokens, width) → (branches, heads, tokens, width of a head)
            x = x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return norm(x) if norm else x

        x, text = hidden_states, encoder_hidden_states
        q, k, v = heads(attn.to_q(x), attn.norm_q), heads(attn.to_k(x), attn.norm_k), heads(attn.to_v(x))
        prev_k, prev_v = self.kept.get(attn, (k, v))
        k, v = self.kept[attn] = self.join(k, prev_k), self.join(v, prev_v)
        if text is not None:  # all but the second attention of SD3.5-medium
            q = torch.cat([q, heads(attn.add_q_proj(text), attn.norm_added_q)], 2)
            k = torch.cat([k, heads(attn.add_k_proj(text), attn.norm_added_k)], 2)
            v = torch.cat([v, heads(attn.add_v_proj(text))], 2)
        x, words = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).tensor_split([x.shape[1]], 1)
        words = words if text is None or attn.context_pre_only else attn.to_add_out(words)
        return attn.to_out[0](x) if text is None else (attn.to_out[0](x), words)


@torch.no_grad()
def algorithm1(large, small, scheduler, x, text, pooled, g, T, masks, tau, min_large=0.1, patience=1, replay=None):
    """Noise x (1, C, H, W), text rows [uncond, cond] or one → picture; stage, mask and score of each step; D from 1."""
    scheduler.set_timesteps(T)
    p, stage, D, score, d, decisions = small.config.patch_size, 0, [], torch.empty(0), x, []
    for i, t in enumerate(scheduler.timesteps):
        if stage <= len(masks) and len(D) >= patience and max(D[-patience:]) < tau[stage]:
            stage += stage > 0 or i >= max(2, ceil(min_large * T))
        mask = None
        if 0 < stage <= len(masks):
            K = min(max(floor(masks[stage - 1] * len(score) + 0.5), 1), len(score))
            mask = torch.zeros_like(score).bool().index_fill(0, score.argsort(descending=True, stable=True)[:K], True)
        decisions.append((stage, mask, score))
        stage, mask = replay[i] if replay else (stage, mask)
        inputs = x.expand(len(text), -1, -1, -1), text, pooled, t.expand(len(text))
        noise = large(*inputs) if stage == 0 else small(*inputs, return_dict=False)[0]
        if mask is not None:
            pixels = mask.view(-1, x.shape[-1] // p).repeat_interleave(p, 0).repeat_interleave(p, 1)
            noise = torch.where(pixels, large(*inputs, mask), noise)
        v = noise if len(text) == 1 else noise[:1] + g * (noise[1:] - noise[:1])
        sigma, next_sigma = scheduler.sigmas[i : i + 2]
        prev_d, d, x = d, x - sigma * v, x + (next_sigma - sigma) * v  # Eq. 10; the scheduler's step
        if i > 0:
            score, size = (F.avg_pool2d(y.abs().mean(1), p).flatten() for y in (d - prev_d, d))
            D.append((score / size).mean().item())  # Eq. 9
    return x, decisions, D


if __name__ == "__main__":
    torch.manual_seed(0)
    large, small = (SD3Transformer2DModel(16, 2, 4, 3, 8, heads, 24, 8 * heads, 20, 4) for heads in (6, 3))
    x, text, pooled = torch.randn(1, 4, 16, 16), torch.randn(2, 7, 24), torch.randn(2, 20)
    euler, masks, tau = FlowMatchEulerDiscreteScheduler(shift=3.0), (0.3, 0.1), (0.5, 0.3, 0.1)
    x, decisions, D = algorithm1(LargeModel(large), small, euler, x, text, pooled, 4.0, 12, masks, tau)
    print("stages", [stage for stage, *_ in decisions], "D", [round(value, 3) for value in D])
