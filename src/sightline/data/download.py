"""Download a published file once, into a cache, with its checksum, going on where it stopped.

pooch owns the cache and the checksum. It has no resume, so the bytes come through
`resume_download`: they gather in `NAME.part`, and a second attempt asks the server for
what is missing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pooch
import requests

from sightline.errors import SightlineError

_CHUNK = 1 << 16  # bytes; what a broken connection loses is less than one of them


def cache_folder() -> Path:
    """Return the folder of downloads: the variable SIGHTLINE_CACHE, or the system's cache folder."""
    return Path(os.environ.get("SIGHTLINE_CACHE") or pooch.os_cache("sightline"))


def fetch(url: str, *, md5: str, otherwise: str) -> Path:
    """Return the path of the file at `url` in the cache, downloaded if it is not there whole.

    otherwise: the other way to get the file, for the error message.
    Raises SightlineError without a network, on a wrong checksum (nothing is kept) or a cache that
    cannot be written. A connection that breaks keeps what came: the next call goes on from there.
    """
    name, cache = url.rsplit("/", 1)[-1], cache_folder()
    try:
        downloader: Any = resume_download  # pooch declares its downloaders as something else
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=name, path=cache, downloader=downloader))
    except requests.RequestException as error:
        raise SightlineError(
            f"cannot download {url} ({_reason(error)}); try again with a network (it goes on where it "
            f"stopped), or {otherwise}"
        ) from error
    except ValueError as error:
        raise SightlineError(
            f"{name} from {url} does not have the published checksum (md5 {md5}) and was deleted; "
            f"try again, or {otherwise}"
        ) from error
    except OSError as error:
        raise SightlineError(
            f"cannot write {name} to {cache} ({error.strerror or error}); name a folder with room in the "
            f"variable SIGHTLINE_CACHE, or {otherwise}"
        ) from error


def resume_download(url: str, output_file: str, _pooch: object = None) -> None:
    """Download `url` to `output_file`, beginning after the bytes in `NAME.part` beside it.

    A downloader for pooch. Raises requests.RequestException; what came by then stays in the part.
    """
    part = Path(output_file).parent / (url.rsplit("/", 1)[-1] + ".part")
    start = part.stat().st_size if part.exists() else 0
    # Without "identity" a server may compress again, and Content-Length would count other bytes.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        if response.status_code != requests.codes.requested_range_not_satisfiable:  # else nothing is missing
            response.raise_for_status()
            _append(response, part, start)
    part.replace(output_file)


def _append(response: requests.Response, part: Path, start: int) -> None:
    resumed = response.status_code == requests.codes.partial_content  # else the server ignored the range
    with part.open("ab" if resumed else "wb") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
        size = file.tell()
    expected = response.headers.get("Content-Length")
    if expected is not None and size != int(expected) + start * resumed:
        raise requests.ConnectionError(f"the connection broke after {size} bytes")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer"
    if "broke after" in str(error) or isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "no connection"
