"""What `patchbay serve` does with its parts, as a program that tests can kill: SERVING.py HOME.

Prints one line of JSON when everything runs: the URL and the ids of its processes.
"""

import json
import shutil
import signal
import sys
from pathlib import Path

from service import observability
from service.embedded.home import Home
from service.embedded.postgres import EmbeddedPostgres
from service.embedded.processes import Child, Children, ending_on_signals


def main() -> None:
    observability.configure("console")
    sleep = shutil.which("sleep")
    assert sleep is not None
    with (
        ending_on_signals(),
        Home.open(Path(sys.argv[1])) as home,
        Children() as children,
    ):
        server = children.add("postgres", lambda: EmbeddedPostgres.start(home, fsync=False))
        worker = children.add("worker", lambda: Child.start([sleep, "1000"], {}))
        ready = {"url": server.url, "pids": [server.process.pid, worker.process.pid]}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
