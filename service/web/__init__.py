"""Catalogue pages, rendered on the server; reads the registry, decides nothing."""
