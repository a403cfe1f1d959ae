"""Patchbay, a registry for model patches."""
