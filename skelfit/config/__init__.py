"""What a run is asked to do: manifests and pipelines from YAML, and their hashes."""
