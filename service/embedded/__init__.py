"""The parts that  starts itself: a state directory, Postgres, children."""
