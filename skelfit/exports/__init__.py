"""Finished shards to the files of other programs: label files, tars, meshes, motions."""
