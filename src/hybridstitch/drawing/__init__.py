"""A plan becomes tensors. All state of one generation is a `Run`; nothing here knows a pipeline.

run      one generation, step by step; decide: a policy at work on it, stepped: what a scheduler's step tells
draw     strokes carried out (groups, skipping), canvas: laid over each other, carry: the last prediction along
call     one call of the transformer, and the two models
change   what a step changed (Eq. 9, 10); masks: which tokens it changed most
kv       keys and values of the large model, updated in place
record   what a step did; clock: seconds, read at the end
guard    steps that are drawn again
engine   how models are run: compiled, rounded, moved
"""
