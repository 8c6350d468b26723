"""A person as an OpenSim model; its motion, clinical angles and page."""
