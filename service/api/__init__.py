"""JSON REST: names the parts, calls the verb, returns; decides nothing."""
