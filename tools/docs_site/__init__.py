"""The documentation site: pages made from the code, and hooks for MkDocs. Not part of the package."""
