"""What applies and extracts patches on the user's own machine, with no server."""
