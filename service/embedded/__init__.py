"""What `patchbay serve` starts itself: a state directory, Postgres, child processes.

Knows files, processes and one database server; nothing of models, patches or HTTP.
"""
