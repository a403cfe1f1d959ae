"""Tables and the engine; knows no rules."""
