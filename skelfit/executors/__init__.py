"""Run shard tasks on many processes or machines. This is the only part that knows Dask.

Nothing that matters is kept in the scheduler. A shard is finished when its marker is on disk, so a run that dies in
any way continues when it is started again. Tasks may run twice; they write the same bytes.
"""
