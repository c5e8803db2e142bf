"""Two models in the seats of an unmodified diffusers pipeline.

stitched    the first seat: the transformer that the pipeline calls; facade: what is asked of it besides drawing
observer    the second seat: the scheduler's steps; estimate: the clean latent they point at
following   which pipeline and scheduler are followed; current: the run under way
stitching   opening, stitching and unstitching; checks: what must hold before
prepared    both models made ready as the engine says; shelf puts the large one away
memory      what a pair needs, read before anything is loaded
"""
