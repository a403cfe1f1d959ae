"""File formats byte by byte: headers, overlays, splices, patch files; standard library only."""
