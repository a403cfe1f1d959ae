"""Structured logs with request and job ids, and the metrics that operators watch."""

import logging
import sys
from typing import Literal

import structlog
from prometheus_client import Counter, Gauge, Histogram

requests = Counter("patchbay_http_requests", "Requests answered.", ["method", "route", "status"])
request_seconds = Histogram(
    "patchbay_http_request_seconds", "Time to the response's first byte.", ["method", "route"]
)
sent_bytes = Counter("patchbay_sent_bytes", "Bytes of blobs, overlays and patched files sent.")
received_bytes = Counter("patchbay_received_bytes", "Bytes of blobs received.")
open_operations = Gauge("patchbay_open_operations", "Operations not ended.", ["queue", "state"])
live_workers = Gauge("patchbay_live_workers", "Workers heard of lately.", ["queue"])


def configure(form: Literal["json", "console"], level: int = logging.INFO) -> None:
    """Send this process's log lines, our own and the libraries', to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    output = logging.StreamHandler()
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level)
    for noisy in ("alembic", "procrastinate", "botocore", "urllib3", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes fields: `log.info("blob stored", digest=digest)`."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound
