"""User commands over the client, one file a noun; knows neither database nor torch."""
