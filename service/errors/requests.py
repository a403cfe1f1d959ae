"""Requests that do not have the expected form."""

from dataclasses import dataclass

from service.errors.tree import Invalid


@dataclass(eq=False)
class BadRequest(Invalid):
    """The request does not have the expected form."""

    reason: str
    slug = "bad-request"

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class FieldsInvalid(Invalid):
    """A field of the request is missing or wrong.

    `errors` lists each field, what is wrong with it, and by which rule.
    """

    errors: list[dict[str, str]]
    slug = "fields-invalid"

    def __str__(self) -> str:
        shown, more = self.errors[:5], len(self.errors[5:])
        told = "; ".join(f"{wrong['field']}: {wrong['message']}" for wrong in shown)
        rest = f"; and {more} more" if more else ""
        return f"{told}{rest}; see /openapi.json"
