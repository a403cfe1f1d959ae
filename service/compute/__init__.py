"""Long work: byte readers in, files out; knows no database and no network."""
