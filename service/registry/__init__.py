"""The registry itself: one module a noun, verbs inside; knows no HTTP and no torch."""
