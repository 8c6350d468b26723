"""The pictures of the gallery that opens docs/: one made-up person, from label to bones to OpenSim to GLB."""
