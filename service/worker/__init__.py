"""From a job of the queue to registry and compute, and back; knows no HTTP."""
