"""Makes the open body (`skelfit/resources/open_body.npz`) from CC0 MakeHuman geometry; a build-time tool."""
