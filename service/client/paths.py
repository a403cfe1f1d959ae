"""Addresses of things, from names that were checked."""

from urllib.parse import quote

from service import names


def model(name: str) -> str:
    """The address of a model; raises `BadName`."""
    return f"/v1/models/{names.model_name(name)}"


def patch(name: str) -> str:
    """The address of a patch; raises `BadName`."""
    return f"/v1/patches/{names.patch_name(name)}"


def channel(name: str) -> str:
    """The address of a channel; raises `BadName`."""
    return f"/v1/channels/{names.channel_name(name)}"


def within(base: str, *rest: str | int | None) -> str:
    """An address below another; a None part is left out."""
    parts = [quote(str(part), safe="/") for part in rest if part is not None]
    return "/".join([base, *parts])
