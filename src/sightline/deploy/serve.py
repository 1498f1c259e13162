"""One local page that answers for a picture: drop, paste or photograph it.

The standard library's server is enough for one person at one machine, and asks nobody: no telemetry, no font
from elsewhere, no request but to itself. It listens on 127.0.0.1 alone and answers pages of its own only.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import re
import tempfile
import threading
from collections.abc import Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from sightline import logs
from sightline.attribution import explain, overlay
from sightline.attribution.methods import find_method
from sightline.audit.conformal import conformal_sets
from sightline.audit.neighbors import nearest_neighbors
from sightline.data import read_image
from sightline.deploy.answers import run_rules
from sightline.errors import InputError, SightlineError, nearest
from sightline.models import choose_device, load_model, to_float
from sightline.predictions import predict_features
from sightline.runs.artifacts import EXPLANATIONS_CARD
from sightline.runs.explain_files import run_card
from sightline.runs.run_folder import Run

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
LARGEST = 20_000_000  # bytes of a picture
_TRAINING = 5_000  # images that neighbours are looked for among
_RARE = 0.01  # share of test images that are less like training than what is called unlike
_SHOWN = 256  # pixels of a picture's longer side at least


class Answerer:
    """What the page asks: a run's model, its rules, and the features of its training images.

    Attributes:
        run: The run.
        rules: How its answers are read.
        limit: Cosine with the nearest training image below which a picture is unlike anything in training;
            None without training images.
    """

    def __init__(self, run: Run, *, trust: Collection[str] = (), device: str = "auto") -> None:
        self.run = run
        self.rules = run_rules(run.folder)
        self.model = load_model(run.folder, trust=trust)[0].to(choose_device(device)).eval()
        explained = run_card(run.folder, EXPLANATIONS_CARD)
        self._method = find_method(explained.get("name", "grad_cam"), trust=trust)
        self._layer = explained.get("main_layer")
        self._lock = threading.Lock()
        self.limit: float | None = None
        self._near()

    @logs.stage("features of the training images")
    def _near(self) -> None:
        data = self.run.data()
        if not len(data.train):
            return
        rows = np.unique(np.linspace(0, len(data.train) - 1, _TRAINING).round().astype(np.int64))
        self._train = data.train.take(rows)
        self._keys = self._features(self._train)
        test = data.test.take(np.unique(np.linspace(0, len(data.test) - 1, 1000).round().astype(np.int64)))
        closest = nearest_neighbors(self._features(test), self._keys, k=1).similarity[:, 0]
        self.limit = float(np.quantile(closest, _RARE))

    def _features(self, split: Any) -> np.ndarray:
        return predict_features(self.model, split, class_names=self.rules.class_names)[1]

    def answer(self, content: bytes, target: str | None = None) -> dict[str, Any]:
        """Return what the page shows of a picture; `target` is the class that is explained.

        Raises:
            InputError: The class is not known.
            DamagedFileError: The content is no picture.
        """
        names = self.rules.class_names
        if target is not None and target not in names:
            raise InputError(f"class {target!r} is not known; {nearest(target, list(names))}")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "picture"
            place.write_bytes(content)
            try:
                pixels = read_image(
                    place,
                    size=self.rules.resizing.size,
                    resize=self.rules.resizing.rule,
                    interpolation=self.rules.resizing.interpolation,
                )
            except SightlineError as error:
                raise InputError(str(error).replace(str(place), "this")) from None
        with self._lock:  # one picture at a time: the model has hooks while it is explained
            found = explain(
                self.model,
                to_float(pixels[None]),
                None if target is None else names.index(target),
                layer=self._layer,
                method=self._method,
            )
            near = self._nearest(pixels)
        logits = np.asarray(found.logits, np.float64)[0]
        plain, calibrated = _softmax(logits), _softmax(logits / self.rules.temperature)
        order = np.argsort(-plain, kind="stable")
        chosen: list[str] = []
        if self.rules.set_threshold is not None:
            inside = conformal_sets(plain[None], self.rules.set_threshold)[0]
            chosen = [names[k] for k in order if inside[k]]
        return {
            "run": self.run.folder.name,
            "top": [{"name": names[k], "confidence": float(calibrated[k])} for k in order[:5]],
            "explained": names[int(found.targets[0])],
            "status": found.status[0],
            "picture": _png(pixels),
            "map": _png(overlay(pixels[None], found.heatmaps())[0]),
            "set": ", ".join(chosen),
            "coverage": self.rules.coverage,
            "below": self.rules.threshold is not None and float(plain.max()) < self.rules.threshold,
            **near,
        }

    def _nearest(self, pixels: np.ndarray) -> dict[str, Any]:
        if self.limit is None:
            return {"near": [], "unlike": None}
        from sightline.data import Split

        query = self._features(Split(pixels[None], np.zeros(1, np.int64)))
        found = nearest_neighbors(query, self._keys, k=min(5, len(self._keys)))
        closest = float(found.similarity[0, 0])
        near = [
            {
                "label": self.rules.class_names[int(self._train.labels[row])],
                "similarity": float(similarity),
                "image": _png(np.asarray(self._train.images[np.array([row])])[0]),
            }
            for row, similarity in zip(found.indices[0], found.similarity[0], strict=True)
        ]
        words = (
            f"Unlike anything in training: its nearest training image has a similarity of {closest:.2f}, and "
            f"99 of 100 test images have one above {self.limit:.2f}. Do not trust the answer."
        )
        return {"near": near, "unlike": words if closest < self.limit else None}


def make_server(answerer: Answerer, *, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page on 127.0.0.1, which `serve_forever` starts; port 0 takes a free one.

    Raises:
        InputError: The port is taken.
    """
    page = (resources.files("sightline.deploy") / "assets" / "serve.html").read_text(encoding="utf-8")
    policy = _policy(page)

    class Handler(BaseHTTPRequestHandler):
        server_version = "Sightline"
        sys_version = ""

        def do_GET(self) -> None:
            if not self._is_ours():
                return
            if self.path != "/":
                self._send(HTTPStatus.NOT_FOUND, {"error": "there is one page, at /"})
                return
            self._send_bytes(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")

        def do_POST(self) -> None:
            if not self._is_ours():
                return
            asked = urlsplit(self.path)
            size = self.headers.get("Content-Length", "")
            if asked.path != "/answer" or not re.fullmatch(r"[0-9]{1,12}", size):
                self._send(
                    HTTPStatus.NOT_FOUND, {"error": "pictures are posted to /answer, with their length"}
                )
            elif int(size) > LARGEST:
                self.close_connection = True
                words = f"the picture has {int(size) / 1e6:.0f} MB; at most {LARGEST / 1e6:.0f} MB are taken"
                self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": words})
            else:
                self._answer(self.rfile.read(int(size)), parse_qs(asked.query).get("target", [None])[0])

        def _answer(self, content: bytes, target: str | None) -> None:
            try:
                self._send(HTTPStatus.OK, answerer.answer(content, target))
            except SightlineError as error:
                self._send(HTTPStatus.BAD_REQUEST, {"error": " ".join(str(error).split())})

        def _is_ours(self) -> bool:
            """Whether this page itself asks: no other site's, under whatever name it reached us."""
            own = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}  # pyright: ignore
            origin = self.headers.get("Origin")
            if self.headers.get("Host") in own and (origin is None or origin.removeprefix("http://") in own):
                return True
            self.close_connection = True
            self._send(HTTPStatus.FORBIDDEN, {"error": "this page answers itself alone"})
            return False

        def _send(self, status: HTTPStatus, content: dict[str, Any]) -> None:
            self._send_bytes(status, json.dumps(content).encode(), "application/json")

        def _send_bytes(self, status: HTTPStatus, content: bytes, kind: str) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                ("Content-Security-Policy", policy),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
                ("Referrer-Policy", "no-referrer"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}); choose another: --port 0") from None


def _policy(page: str) -> str:
    """One style and one script, by their hashes; pictures from memory; requests to this server alone."""
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for tag in ("style", "script")
        for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
    ]
    style, script = digests
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src data: blob:; "
        "media-src blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _png(pixels: np.ndarray) -> str:
    """A picture, uint8 (H, W, 3), as a data address; small ones enlarged to be seen."""
    picture = Image.fromarray(pixels)
    factor = max(1, _SHOWN // max(picture.size))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
