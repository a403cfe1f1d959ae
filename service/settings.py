"""Every environment variable, typed; imported by `app.py` and `manage.py` alone."""

import os
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 2**20
GIB = 2**30


def default_home() -> Path:
    """The platform's data directory; as root a system one, since Postgres drops privileges."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/patchbay")
    return platformdirs.user_data_path("patchbay", appauthor=False)


class Settings(BaseSettings):
    """What the environment may set; each variable is the field's name behind `PATCHBAY_`."""

    model_config = SettingsConfigDict(env_prefix="PATCHBAY_", extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=default_home, description="State directory of the embedded default."
    )
    host: str = Field(default="127.0.0.1", description="Address that `serve` listens on.")
    port: int = Field(default=8321, ge=0, le=65535, description="Port that `serve` listens on.")
    database_url: SecretStr | None = Field(
        default=None, description="postgresql://…; unset: an embedded Postgres under the home."
    )
    blob_url: str | None = Field(
        default=None, description="s3://bucket/prefix or a folder; unset: a folder under the home."
    )
    s3_endpoint_url: str | None = Field(
        default=None, description="Endpoint of an S3-compatible store; unset: as boto3 finds it."
    )
    s3_presign: bool = Field(
        default=True,
        description="Are clients sent to the S3 store with signed URLs? Else all passes through.",
    )
    s3_public_url: str | None = Field(
        default=None, description="Endpoint at which clients reach the S3 store, if another."
    )
    cache_bytes: int = Field(
        default=10 * GIB,
        ge=0,
        description="Disk for hot blobs where they lie in S3, least recently used out; 0: none.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Folder of the hot blobs, for any number of processes; unset: under the home.",
    )
    disk_reserve_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Bytes that a folder store leaves free; unset: 5 % of the disk, at most 1 GiB.",
    )
    upload_limit_bytes: int = Field(
        default=64 * GIB, gt=0, description="The largest blob that is taken."
    )
    overlay_cache_bytes: int = Field(
        default=10 * GIB,
        ge=0,
        description="Overlays beyond this expire, least recently used first; channels' stay.",
    )
    anonymous_read: bool | None = Field(
        default=None, description="May callers without a token read? Unset: only on loopback."
    )
    anonymous_build: bool = Field(
        default=False, description="May callers without a token start builds?"
    )
    grace_s: int = Field(
        default=25, gt=0, description="How long downloads may go on once the service is to end."
    )
    device: str = Field(default="auto", description="cuda:N, cpu or auto; what a worker uses.")
    queue_limit: int = Field(
        default=1000, gt=0, description="Queued operations beyond this are refused with 429."
    )
    heartbeat_s: float = Field(default=10, gt=0, description="How often a worker gives a sign.")
    stalled_after_s: float = Field(
        default=30, gt=0, description="A worker silent for this long is taken for dead."
    )
    log_format: Literal["json", "console"] = Field(
        default="console", description="How log lines look."
    )
    url: str | None = Field(
        default=None, description="Where the command line finds the service; unset: loopback."
    )
    token: SecretStr | None = Field(
        default=None, description="Token of the command line; unset: the home's owner-token."
    )
