"""Many pictures, drawn into one folder by work that may be killed at any moment and begun again.

A job is everything that decides one picture; its id is the hash of that, and its picture is DIR/<id>.png. So work may
be done twice, and the result is there once:

    job       what to draw, and the id of it
    listing   jobs from a list or a sample of a captions file
    rows      the rows of a list, as JSONL, CSV or Parquet say them
    ledger    a manifest: one shard a worker, one row a try
    folder    which jobs have a valid picture already
    copies    a copy of the folder at an address, as it grows
    work      a few jobs: draw, keep the pictures, write their rows; an error becomes a row
    executor  who does the jobs: this process, or several at seats
    seats     workers side by side, one process a device; one that dies is replaced
    on_ray    the same seats anywhere in a Ray cluster
    imagefolder  what each picture shows, for Hugging Face's loader
    packing   a folder as shards
    shards    their formats: webdataset, Parquet
    drawing   all jobs, put together for few calls; those that fail tried again, three times at most
    estimate  time and disk before anything is drawn

What opens a pair is handed in. Beside it, for whoever shares out work or draws for long:

    pool      the one place that makes processes
    crew      tasks side by side, a process a core
    ray_crew  the same anywhere in a Ray cluster
    heap      freed memory stays with the process
"""
