"""Where does stitching beat fewer large steps? A search over plans of a few steps, and a verdict on other prompts.

    python -m benchmarks.few_steps search --minutes 20     # on 8 prompts; goes on where it stopped
    python -m benchmarks.few_steps verify --prompts 64     # on 64 others

A candidate is a program and a shift of the noise levels (`policies.levels`). The rival is the large model alone,
and where its steps are taken is searched just as well: a repeated prediction is a longer step of Euler's method, so
programs of L and - are fewer large steps at any levels. At each number of large steps the best of them counts; between
two numbers its decibels are interpolated at exactly the candidate's time. Time is that of the measured strokes, steps
and pictures
(`Prices`), checked by real calls that take turns.

The search mutates the best candidates of each budget and looks at the distance to the clean latent of 50 large steps.
`verify` draws the best of each budget and its rivals on prompts the search never saw. Both write
`docs/results/few_steps/`: search.csv, prices.json, raw.csv, table.json, table.md, front.png.
"""
