"""Makes the open body (`skelfit/body/data/open_body.npz`) from CC0 MakeHuman geometry; a build-time tool."""
