"""What the faces share about HTTP: callers, problems, ranges, bodies, paging."""
