"""Shard tasks on many processes or machines: the only part that knows Dask.

Nothing that matters is kept in the scheduler: a shard is finished when its marker is on disk, so a run that
dies in any way is continued by starting it again. Tasks may run twice; they write the same bytes.
"""
