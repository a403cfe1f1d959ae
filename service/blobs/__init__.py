"""Bytes named by digest, in a folder or in S3; knows nothing of what they mean."""
