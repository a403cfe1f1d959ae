"""A page as a test reads it: its text, links and forms, and what a strict policy would refuse."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx2

_FETCHED = {"src", "href", "action", "data-events"}
_WITHIN_A_LINE = {"a", "span", "code", "strong", "time", "b"}


@dataclass
class Seen(HTMLParser):
    """What stands on a page."""

    text: str = ""
    links: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    """All that a browser would fetch or follow."""
    inline: list[str] = field(default_factory=list)
    """Inline styles, scripts and handlers, which the policy of the pages refuses."""
    tags: list[str] = field(default_factory=list)
    title: str = ""
    ids: list[str] = field(default_factory=list)
    pointed: list[str] = field(default_factory=list)
    """Ids that others on the page point at."""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += "" if tag in _WITHIN_A_LINE else " "
        given = {name: value or "" for name, value in attrs}
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.addresses += [value for name, value in given.items() if name in _FETCHED]
        if tag == "a":
            self.links.append(given["href"])
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        for name in ("aria-labelledby", "data-copy", "for"):
            self.pointed += given.get(name, "").split()

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["title"] and not self.title:
            self.title = data
        self.text += data


def read(answer: httpx2.Response) -> Seen:
    """Read a page; checks that it is one and breaks none of the rules that all pages keep."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    seen = Seen()
    seen.feed(answer.text)
    seen.close()
    assert seen.inline == []
    assert [each for each in seen.addresses if not each.startswith(("/", "#"))] == []
    assert len(seen.ids) == len(set(seen.ids))
    assert set(seen.pointed) <= set(seen.ids)
    seen.text = " ".join(seen.text.replace("\u202f", " ").split())
    return seen


def links(answer: httpx2.Response) -> list[str]:
    """Where a page leads, whatever page it is."""
    seen = Seen()
    seen.feed(answer.text)
    return seen.links
