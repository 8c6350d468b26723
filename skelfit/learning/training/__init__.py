"""The thin trainer: SKEL-CF's network on finished shards. Knows shards and bodies, nothing of the fit."""
