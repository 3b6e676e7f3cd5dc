"""A real STAC API and its assets on the loopback interface, which can be told to fail.

    with StacServer(folder) as server:
        server.add_item("a", {"red": path}, when="2020-06-01")
        server.fail("red.tif", times=2)
        table = search_stac(server.url, ...)
        assert server.count("red.tif") > 2

Assets are files under ``folder``; they are served with ranges below ``/assets/``.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pandas as pd
import rasterio
import shapely
from rasterio.warp import transform_geom

CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#query",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
]


@dataclass(frozen=True)
class Request:
    """One request as it came in: method, path without query, query, headers, body."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any] | None = None

    @property
    def span(self) -> tuple[int, int | None] | None:
        """First and last byte asked for; None if the whole file was."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) if match[2] else None) if match else None


@dataclass
class _Fault:
    """What to do with the next ``times`` requests whose path ends in ``name``."""

    name: str
    times: int
    status: int = 0
    cut: bool = False
    beyond: int = 0
    method: str = ""
    retry_after: int | None = None

    def meets(self, request: Request) -> bool:
        first = request.span[0] if request.span else 0
        wanted = request.path.endswith(self.name) and self.method in ("", request.method)
        return self.times > 0 and wanted and (self.beyond == 0 or first >= self.beyond)


@dataclass
class StacServer:
    """A STAC API over ``items``, and the files of ``folder``."""

    folder: Path
    page: int = 10
    items: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    faults: list[_Fault] = field(default_factory=list)
    token: str | None = None
    etags: bool = True

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"world": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> StacServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        """Address of the STAC API."""
        return f"{self.root}/stac"

    def href(self, path: Path | str) -> str:
        """Address of a file of the folder."""
        path = Path(path)
        inside = path.relative_to(self.folder) if path.is_absolute() else path
        return f"{self.root}/assets/{quote(inside.as_posix())}"

    def fail(
        self,
        name: str,
        *,
        times: int,
        status: int = 503,
        method: str = "",
        retry_after: int | None = None,
    ) -> None:
        """Answer the next ``times`` requests for paths that end in ``name`` with ``status``."""
        self.faults.append(
            _Fault(name, times, status=status, method=method, retry_after=retry_after)
        )

    def cut(self, name: str, *, times: int, beyond: int = 0) -> None:
        """Promise all bytes, send half of them and hang up; for ranges from ``beyond`` on."""
        self.faults.append(_Fault(name, times, cut=True, beyond=beyond, method="GET"))

    def require_signature(self, token: str | None) -> None:
        """Refuse assets (403) whose query does not hold ``sig=<token>``."""
        self.token = token

    def sign(self, href: str) -> str:
        """Sign an address with the token of this moment."""
        return f"{href}?sig={self.token}"

    def count(self, name: str = "", method: str = "") -> int:
        """How many requests came for paths that end in ``name``."""
        with self.lock:
            return sum(r.path.endswith(name) and method in ("", r.method) for r in self.requests)

    def sent(self, name: str) -> list[Request]:
        """Requests for paths that end in ``name``, in order."""
        with self.lock:
            return [r for r in self.requests if r.path.endswith(name)]

    def add_item(
        self,
        id: str,
        assets: dict[str, Path],
        *,
        when: str | tuple[str, str] = "2020-06-01T10:00:00Z",
        collection: str = "made",
        properties: dict[str, Any] | None = None,
        fields: dict[str, dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Add an item made from its files' headers; ``fields`` override those of its assets."""
        item = make_item(
            id,
            {key: (self.href(path), path) for key, path in assets.items()},
            when=when,
            collection=collection,
            properties=properties,
            fields=fields,
        )
        self.items.append(item)
        return item

    def find(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Items that a search asks for."""
        return [item for item in self.items if _matches(item, asked)]


def make_item(
    id: str,
    assets: dict[str, tuple[str, Path]],
    *,
    when: str | tuple[str, str],
    collection: str | None,
    properties: dict[str, Any] | None = None,
    fields: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Make a STAC item of (href, file) pairs, with the projection fields of their headers."""
    shapes, described = [], {}
    for key, (href, path) in assets.items():
        with rasterio.open(path) as source:
            outline = shapely.geometry.mapping(shapely.box(*source.bounds))
            shapes.append(shapely.geometry.shape(transform_geom(source.crs, "EPSG:4326", outline)))
            described[key] = {
                "href": href,
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
                "proj:code": f"EPSG:{source.crs.to_epsg()}",
                "proj:shape": [source.height, source.width],
                "proj:transform": list(source.transform)[:6],
                **(fields or {}).get(key, {}),
            }
    outline = shapely.union_all(shapes)
    times: dict[str, Any] = {"datetime": when}
    if isinstance(when, tuple):
        times = {"datetime": None, "start_datetime": when[0], "end_datetime": when[1]}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": id,
        **({} if collection is None else {"collection": collection}),
        "geometry": json.loads(shapely.to_geojson(outline)),
        "bbox": list(outline.bounds),
        "properties": {**times, **(properties or {})},
        "links": [],
        "assets": described,
    }


def _moment(text: str) -> pd.Timestamp:
    moment = pd.Timestamp(text)
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment


def _within(properties: dict[str, Any], interval: str) -> bool:
    start, _, end = interval.partition("/")
    end = end or start
    first = properties.get("start_datetime") or properties["datetime"]
    last = properties.get("end_datetime") or properties["datetime"]
    after = start in ("", "..") or _moment(last) >= _moment(start)
    return after and (end in ("", "..") or _moment(first) <= _moment(end))


_COMPARE = {
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a is not None and a < b,
    "lte": lambda a, b: a is not None and a <= b,
    "gt": lambda a, b: a is not None and a > b,
    "gte": lambda a, b: a is not None and a >= b,
}


def _matches(item: dict[str, Any], asked: dict[str, Any]) -> bool:
    if asked.get("collections") and item.get("collection") not in asked["collections"]:
        return False
    if asked.get("ids") and item["id"] not in asked["ids"]:
        return False
    if asked.get("bbox"):
        west, south, east, north = asked["bbox"]
        if not shapely.box(west, south, east, north).intersects(
            shapely.geometry.shape(item["geometry"])
        ):
            return False
    if asked.get("datetime") and not _within(item["properties"], asked["datetime"]):
        return False
    return all(
        _COMPARE[name](item["properties"].get(key), value)
        for key, tests in (asked.get("query") or {}).items()
        for name, value in tests.items()
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: StacServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        headers = {k.lower(): v for k, v in self.headers.items()}
        request = Request(method, unquote(parts.path), query, headers, body)
        with self.world.lock:
            self.world.requests.append(request)
            fault = next((f for f in self.world.faults if f.meets(request)), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None and fault.status:
            wait = fault.retry_after
            more = {} if wait is None else {"Retry_After": str(wait)}
            self._send(fault.status, b"told to fail", **more)
        elif request.path.startswith("/assets/"):
            self._asset(request, cut=fault is not None)
        else:
            self._stac(request)

    def _send(self, status: int, content: bytes, kind: str = "text/plain", **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # a reader that has seen enough hangs up
                self.wfile.write(content)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "application/geo+json")

    def _asset(self, request: Request, *, cut: bool) -> None:
        world = self.world
        if world.token is not None and request.query.get("sig") != world.token:
            return self._send(403, b"not signed")
        path = world.folder / request.path.removeprefix("/assets/")
        if not path.is_file():
            return self._send(404, b"no such file")
        content = path.read_bytes()
        first, last = request.span or (0, None)
        last = min(len(content) - 1, last if last is not None else len(content) - 1)
        if first >= len(content):
            return self._send(416, b"", Content_Range=f"bytes */{len(content)}")
        part = content[first : last + 1]
        more = {"Accept_Ranges": "bytes"}
        if world.etags:
            more["ETag"] = f'"{len(content)}-{path.stat().st_mtime_ns}"'
        if request.span:
            more["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
        if not cut:
            return self._send(206 if request.span else 200, part, "image/tiff", **more)
        self.send_response(206 if request.span else 200)
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2])
        self.wfile.flush()
        self.close_connection = True
        return None

    def _stac(self, request: Request) -> None:
        names = sorted({str(i.get("collection")) for i in self.world.items})
        path = request.path.rstrip("/")
        if path == "/stac":
            return self._json(self._landing())
        if path == "/stac/conformance":
            return self._json({"conformsTo": CONFORMANCE})
        if path == "/stac/collections":
            found = [self._collection(name) for name in names]
            return self._json({"collections": found, "links": []})
        if path.startswith("/stac/collections/") and path.rpartition("/")[2] in names:
            return self._json(self._collection(path.rpartition("/")[2]))
        if path == "/stac/search":
            return self._json(self._search(request))
        return self._send(404, b"no such page")

    def _link(self, rel: str, path: str, **more: Any) -> dict[str, Any]:
        return {"rel": rel, "href": self.world.root + path, "type": "application/json", **more}

    def _landing(self) -> dict[str, Any]:
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "loopback",
            "description": "A STAC API on the loopback interface",
            "conformsTo": CONFORMANCE,
            "links": [
                self._link("self", "/stac"),
                self._link("root", "/stac"),
                self._link("data", "/stac/collections"),
                self._link("conformance", "/stac/conformance"),
                self._link("search", "/stac/search", method="GET"),
                self._link("search", "/stac/search", method="POST"),
            ],
        }

    def _collection(self, name: str) -> dict[str, Any]:
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "CC0-1.0",
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [[None, None]]},
            },
            "links": [self._link("self", f"/stac/collections/{name}"), self._link("root", "/stac")],
        }

    def _search(self, request: Request) -> dict[str, Any]:
        if request.method == "POST":
            asked = dict(request.body or {})
        else:
            asked = dict(request.query)
            for name in ("collections", "ids"):
                if name in asked:
                    asked[name] = asked[name].split(",")
            if "bbox" in asked:
                asked["bbox"] = [float(v) for v in asked["bbox"].split(",")]
            if "query" in asked:
                asked["query"] = json.loads(asked["query"])
        found = self.world.find(asked)
        start = int(asked.get("token") or 0)
        limit = min(int(asked.get("limit") or self.world.page), self.world.page)
        links = []
        if start + limit < len(found):
            token = str(start + limit)
            if request.method == "POST":
                body = {**asked, "token": token}
                links.append(self._link("next", "/stac/search", method="POST", body=body))
            else:
                query = urlencode({**request.query, "token": token})
                links.append(self._link("next", f"/stac/search?{query}", method="GET"))
        return {
            "type": "FeatureCollection",
            "features": found[start : start + limit],
            "links": links,
            "numberMatched": len(found),
        }
