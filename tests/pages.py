"""A report's page as elements, text and tables, and what every page has to fulfil."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}


class Page(HTMLParser):
    """A page as elements (tag, attributes), and text by the elements around it."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.styles, self.tables = [], [], [], []
        self.scripts = []
        self._open = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append({"tag": tag, "text": "", "data": []})
        elif tag == "data" and self._in_cell():
            self.tables[-1][-1][-1]["data"].append([dict(attrs)["value"], ""])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            self.styles.append(data)
            return
        if "script" in self._open:
            self.scripts.append(data)
            return
        self.text.append(data)
        if self._in_cell():
            cell = self.tables[-1][-1][-1]
            cell["text"] += data
            if "data" in self._open:
                cell["data"][-1][1] += data

    def _in_cell(self):
        return "td" in self._open or "th" in self._open

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def table(self, first_header):
        (found,) = [t for t in self.tables if t[0][0]["text"].strip() == first_header]
        return found

    @property
    def data(self):
        """What the page's script knows."""
        return json.loads(self.scripts[0])


def assert_self_contained(page):
    """The page loads nothing, runs its own script alone, and refers to nothing outside."""
    assert page.source.startswith("<!DOCTYPE html>")
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "iframe", "object", "embed", "base", "form"}
    assert page.of("script") == [{"type": "application/json", "id": "data"}, {}]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    (policy,) = (each["content"] for each in page.of("meta") if "http-equiv" in each)
    allowed = "img-src data:; style-src 'unsafe-inline'"
    own = f"script-src 'sha256-{digest}'"
    assert policy == f"default-src 'none'; {allowed}; {own}; base-uri 'none'; form-action 'none'"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", page.scripts[1])
    for _, attributes in page.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on")
            if attribute in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
                assert value.startswith(("#", "data:image/"))
            assert "url(http" not in (value or "")
    css = "".join(page.styles)
    assert "prefers-color-scheme: dark" in css
    assert "url(" not in css
    assert "@import" not in css
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for attrs in [*page.of("a"), *page.of("use")]}
    assert {link.removeprefix("#") for link in links} <= set(ids)


def assert_accessible(page):
    """Screen readers are told the language, what pictures show, and what heads a table."""
    assert page.of("html")[0]["lang"] == "en"
    assert all(attrs.get("alt") for attrs in page.of("img"))
    assert page.of("svg")
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.of("svg"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.of("th"))
