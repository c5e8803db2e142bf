"""Many pictures, drawn into one folder by work that may be killed at any moment and begun again.

A job is everything that decides one picture; its id is the hash of that, and its picture is DIR/<id>.png. So work may
be done twice, and the result is there once:

    job       what to draw, and the id of it
    listing   jobs from a list (JSONL, CSV) or a sample of a captions file
    ledger    a manifest: one shard a worker, one row a try
    folder    which jobs have a valid picture already
    work      one job: draw, keep the picture, write its row; an error becomes a row
    executor  who does the jobs: this process, or one process a device
    drawing   all jobs, those that fail tried again, three times at most
    estimate  time and disk before anything is drawn

Nothing here imports torch; what opens a pair is handed in.
"""
