"""Many pictures, drawn into one folder by work that may be killed at any moment and begun again.

A job is everything that decides one picture; its id is the hash of that, and its picture is DIR/<id>.png. So work may
be done twice, and the result is there once:

    job       what to draw, and the id of it
    listing   jobs from a list (JSONL, CSV) or a sample of a captions file
    ledger    a manifest: one shard a worker, one row a try
    folder    which jobs have a valid picture already
    work      a few jobs: draw, keep the pictures, write their rows; an error becomes a row
    executor  who does the jobs: this process, or several at seats
    seats     workers side by side, one process a device; one that dies is replaced
    on_ray    the same seats anywhere in a Ray cluster
    drawing   all jobs, put together for few calls; those that fail tried again, three times at most
    estimate  time and disk before anything is drawn

What opens a pair is handed in. Beside it, for whoever shares out work or draws for long:

    pool      the one place that makes processes
    crew      tasks side by side, a process a core
    heap      freed memory stays with the process
"""
