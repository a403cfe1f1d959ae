"""A typed HTTP client; knows only the schemas."""
