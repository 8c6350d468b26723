"""Files that come with skelfit: manifests, pipelines and the open body."""
