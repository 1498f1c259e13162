"""The local page: it answers as the model does, for itself alone, and asks nobody."""

from __future__ import annotations

import http.client
import io
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import sightline as sl
from sightline.deploy import Answerer, make_server
from sightline.deploy import serve as module
from sightline.errors import InputError
from sightline.models import to_float

SMALL = [
    *("model.options={widths=[8, 8, 8]}", "training.epochs=1", "data.limit=200", "analysis.compare_images=0"),
    *("analysis.range_test=false", "analysis.mistakes=2", "analysis.correct=1", "analysis.samples=2"),
    "training.precision='float32'",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    return sl.run("shapes-quick", changes=SMALL, out=out, device="cpu", verbose=False)


@pytest.fixture(scope="module")
def address(run):
    with make_server(Answerer(run, device="cpu")) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def ask(address, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, body=body, headers=headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def test_it_answers_as_the_model_does(run, address):
    image = run.data().test.images[0]
    reply, content = ask(address, "POST", "/answer", png(image))
    found = json.loads(content)
    assert reply.status == 200
    with torch.inference_mode():
        logits = run.model()(to_float(image[None])).numpy()[0].astype(float)
    temperature = run.audit.calibration.temperature or 1
    powers = np.exp(logits / temperature - (logits / temperature).max())
    names = run.predictions.class_names
    assert [one["name"] for one in found["top"]] == [names[k] for k in np.argsort(-logits)[:5]]
    expected = np.sort(powers / powers.sum())[::-1][:5]
    np.testing.assert_allclose([one["confidence"] for one in found["top"]], expected, atol=1e-5)
    assert found["explained"] == names[logits.argmax()]
    assert len(found["near"]) == 5
    assert found["picture"].startswith("data:image/png;base64,")
    other = json.loads(ask(address, "POST", f"/answer?target={names[3]}", png(image))[1])
    assert other["explained"] == names[3]
    training = json.loads(ask(address, "POST", "/answer", png(run.data().train.images[0]))[1])
    assert training["near"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert training["unlike"] is None


def test_a_picture_unlike_all_others_is_called_so(run):
    answerer = Answerer(run, device="cpu")
    image = png(run.data().test.images[0])
    assert answerer.answer(image)["unlike"] is None
    answerer.limit = 1.1  # more than any cosine
    assert answerer.answer(image)["unlike"].startswith("Unlike anything in training")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "words"),
    [
        ("POST", "/answer", b"no picture", {}, 400, "cannot read this as a picture"),
        ("POST", "/answer?target=moon", None, {}, 400, "class 'moon' is not known"),
        ("POST", "/elsewhere", b"", {}, 404, "pictures are posted to /answer"),
        ("GET", "/../secret", None, {}, 404, "there is one page"),
        ("GET", "/", None, {"Host": "evil.example"}, 403, "answers itself alone"),
        ("POST", "/answer", b"x", {"Origin": "http://evil.example"}, 403, "answers itself alone"),
        ("POST", "/answer", b"x", {"Content-Length": "999999999"}, 413, "at most 20 MB"),
    ],
)
def test_what_it_refuses_gets_one_line(run, address, method, path, body, headers, status, words):
    if "target" in path:
        body = png(run.data().test.images[0])
    reply, content = ask(address, method, path, body, **headers)
    assert reply.status == status
    assert words in json.loads(content)["error"]
    assert "\n" not in json.loads(content)["error"]


def test_a_taken_port_is_named(run, address):
    with pytest.raises(InputError, match="cannot be used"):
        make_server(Answerer(run, device="cpu"), port=int(address.split(":")[1]))


def test_the_page_allows_its_own_style_and_script_and_this_server(address):
    reply, content = ask(address, "GET", "/")
    policy = reply.headers["Content-Security-Policy"]
    assert policy == module._policy(content.decode())
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.browser
def test_in_a_browser_a_picture_is_answered_for_and_nobody_else_is_asked(browser, run, address, tmp_path):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"http://{address}/")
    (tmp_path / "a.png").write_bytes(png(run.data().test.images[0]))
    page.set_input_files("#file", tmp_path / "a.png")
    page.wait_for_selector("#answer:not([hidden])")
    first = page.inner_text("#top li:first-child button")
    assert page.inner_text("#looked") in (f"What speaks for {first}", f"For {first}: no positive evidence")
    page.click("#top li:nth-child(2) button")
    second = page.inner_text("#top li:nth-child(2) button")
    page.wait_for_selector(f"#looked:has-text('{second}')")
    (tmp_path / "b.png").write_bytes(b"torn")
    page.set_input_files("#file", tmp_path / "b.png")
    page.wait_for_selector("#said:has-text('cannot read this as a picture')")
    assert not page.is_visible("#answer")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    outside = [url for url in asked if not url.startswith((f"http://{address}/", "data:", "blob:"))]
    assert outside == []
    assert [one for one in said if "400" not in one] == []
    context.close()
