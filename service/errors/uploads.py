"""Bytes on their way in."""

from dataclasses import dataclass

from service.errors.tree import Conflict, Gone, Invalid, TooLarge


@dataclass(eq=False)
class DigestMismatch(Invalid):
    """The bytes are not the ones their digest names."""

    expected: str
    actual: str
    slug = "digest-mismatch"

    def __str__(self) -> str:
        return (
            f"the bytes hash to {self.actual}, not to {self.expected}; "
            "nothing was kept, send them again"
        )


@dataclass(eq=False)
class BodyCutOff(Invalid):
    """Fewer bytes arrived than were announced."""

    expected_bytes: int
    received_bytes: int
    slug = "body-cut-off"

    def __str__(self) -> str:
        return (
            f"{self.received_bytes} of {self.expected_bytes} bytes arrived; nothing was kept, "
            "send them again"
        )


@dataclass(eq=False)
class BodyTooLong(Invalid):
    """More bytes arrived than were announced."""

    expected_bytes: int
    slug = "body-too-long"

    def __str__(self) -> str:
        return f"more than the announced {self.expected_bytes} bytes arrived; nothing was kept"


@dataclass(eq=False)
class UploadTooLarge(TooLarge):
    """A body is over the size limit."""

    size_bytes: int
    limit_bytes: int
    slug = "upload-too-large"

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes are over the limit of {self.limit_bytes}"


@dataclass(eq=False)
class UploadEnded(Gone):
    """An upload in parts is over: it was aborted, took too long or held the wrong bytes."""

    upload: str
    reason: str
    slug = "upload-ended"

    def __str__(self) -> str:
        return f"upload {self.upload} {self.reason}; begin another with POST /v1/uploads"


@dataclass(eq=False)
class UploadSealed(Conflict):
    """An upload takes no more parts while it is checked."""

    upload: str
    slug = "upload-sealed"

    def __str__(self) -> str:
        return (
            f"upload {self.upload} was declared complete and takes no more parts; "
            f"GET /v1/uploads/{self.upload} names the operation that checks it"
        )


@dataclass(eq=False)
class PartsMissing(Conflict):
    """An upload is not complete: some of its parts have not arrived.

    `missing` holds the numbers of the first hundred.
    """

    upload: str
    count: int
    missing: list[int]
    slug = "parts-missing"

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.missing[:10]))
        more = f" and {self.count - 10} more" if self.count > 10 else ""  # noqa: PLR2004
        return (
            f"part {shown}{more} of upload {self.upload} did not arrive; send what is missing, "
            "then complete it"
        )


@dataclass(eq=False)
class PartSizeWrong(Invalid):
    """A part of an upload must have exactly the size that its place calls for."""

    part: int
    expected_bytes: int
    announced_bytes: int
    slug = "part-size-wrong"

    def __str__(self) -> str:
        return (
            f"part {self.part} holds {self.expected_bytes} bytes, not {self.announced_bytes}; "
            "every part has the upload's part_bytes, only the last may be shorter"
        )
