"""Finished shards to the files that others read: label files, tars, meshes, motions."""
