"""A plan becomes tensors. All state of one generation is a `Run`; nothing here knows a pipeline.

run      decide, draw, observe, step by step
draw     strokes, and how they are laid over each other; carry moves the last prediction along
change   what a step changed (Eq. 9, 10), and which tokens it changed most
kv       keys and values of the large model, updated in place
record   what a step did; clock: seconds, read at the end
guard    steps that are drawn again
engine   how models are run: compiled, rounded, moved
"""
