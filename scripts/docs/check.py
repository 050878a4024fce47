"""Look through the built site for what a strict build does not see; exits with 1 if there is any.

    python scripts/docs/check.py site

Pages must load nothing from other servers (scripts, styles, fonts, images), and every image and
every local file that a page names must exist. Needs the standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
FOLLOWED = {"a": "href"}
HARMLESS = ("canonical", "next", "prev", "alternate")


class Links(HTMLParser):
    """Collects what a page loads and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in HARMLESS:
            return
        if address := values.get(LOADS.get(tag, "")):
            self.loads.append(address)
        if address := values.get(FOLLOWED.get(tag, "")):
            self.leads.append(address)


def problems(site: Path) -> Iterator[str]:
    for page in sorted(site.rglob("*.html")):
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        name = page.relative_to(site)
        for address in links.loads:
            if urlsplit(address).netloc:
                yield f"{name}: loads {address}"
        for address in {*links.loads, *links.leads}:
            if missing(site, page, address):
                yield f"{name}: {address} does not exist"


def missing(site: Path, page: Path, address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc or not parts.path:
        return False
    start = site if parts.path.startswith("/") else page.parent
    target = start / unquote(parts.path).lstrip("/")
    return not (target.is_file() or (target / "index.html").is_file())


def main() -> None:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    found = list(problems(site))
    print("\n".join(found) or f"{site}: nothing from other servers, nothing missing")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
