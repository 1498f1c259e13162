"""The commands that leave with the model: to another program, and to pictures."""

from __future__ import annotations

import click

from sightline.cli import options
from sightline.cli.app import app
from sightline.cli.options import PATH, emit
from sightline.errors import InputError


@app.command()
@click.argument("model", type=PATH, metavar="RUN|MODEL.onnx")
@click.argument("pictures", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="The table of answers: .csv or .parquet.")
@click.option("--maps", type=PATH, help="Draw where the model looked in each picture into this folder.")
@click.option("--probabilities", is_flag=True, help="Add a column for each class.")
@click.option(
    "--error",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="Error rate that is wanted among the answers above the threshold.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="How often the set of classes is to hold the true one.",
)
@options.trust
@options.device
@options.as_json
@options.quiet
@options.debug
def predict(
    model, pictures, out, maps, probabilities, error, coverage, trust, device, as_json, quiet
) -> None:
    """Answer for PICTURES: files, folders, manifests or patterns.

    Each picture gets a row: path, class, calibrated confidence, the set of classes that holds the true one as
    often as --coverage says, and whether a person should look. Killed, the same command goes on. A MODEL.onnx
    of 'sightline export' needs no torch.
    """
    from sightline.cli.console import log_shown
    from sightline.deploy import predict_pictures

    with log_shown(to_stderr=True, quiet=quiet):
        done = predict_pictures(
            model, pictures, out, maps=maps, probabilities=probabilities, error=error, coverage=coverage,
            trust=trust, device=device,
        )  # fmt: skip
    for path, problem in list(done.unread.items())[:10]:
        click.echo(f"not read: {path}: {problem}", err=True)
    text = f"{done.path}: {done.pictures - len(done.unread)} of {done.pictures} pictures answered for"
    if done.unread:
        text += f"; {len(done.unread)} could not be read, and say why in the column problem"
    if done.rules.threshold is None:
        text += f"; no threshold is sure to keep {done.rules.wanted_error:.0%} of errors"
    found = {"answers": str(done.path), "pictures": done.pictures, "unread": done.unread, "kept": done.kept}
    emit(found, as_json=as_json, text=text)


@app.command()
@click.argument("run", type=PATH)
@click.option("--onnx", type=PATH, help="Write this .onnx file.")
@click.option("--int8", is_flag=True, help="With --onnx: in 8-bit integers; what that costs is measured.")
@click.option("--torch", "program", type=PATH, help="Write this .pt2 file, a program of torch.export.")
@click.option("--hub", type=PATH, help="Lay out this folder as a model hub shows it; nothing is uploaded.")
@click.option("--licence", default="", help="With --hub: the licence of the weights, for the card.")
@options.trust
@options.as_json
@options.quiet
@options.debug
def export(run, onnx, int8, program, hub, licence, trust, as_json, quiet) -> None:
    """Write the model of RUN for other programs, checked against the run's own.

    Class names, resizing, temperature, threshold and sets travel in the file and in a card beside it.
    """
    from sightline.cli.console import log_shown
    from sightline.deploy import export_hub, export_onnx, export_torch
    from sightline.runs import load_run

    if onnx is None and program is None and hub is None:
        raise InputError("nothing is to be written; give --onnx FILE, --torch FILE or --hub FOLDER")
    if int8 and onnx is None:
        raise InputError("--int8 is of an ONNX file; give --onnx FILE")
    found, lines = {}, []
    with log_shown(to_stderr=True, quiet=quiet):
        opened = load_run(run, trust=trust)
        for path, write in ((onnx, export_onnx), (program, export_torch)):
            if path is not None:
                made = write(opened, path, **({"int8": int8} if write is export_onnx else {}))
                found[str(made.path)] = {"difference": made.difference, "images": made.images}
                lines.append(
                    f"{made.path}: logits differ by {made.difference:.2g} at most ({made.images} test images)"
                )
                if made.accuracy is not None and made.accuracy_before is not None:
                    found[str(made.path)] |= {"accuracy": made.accuracy, "before": made.accuracy_before}
                    lines[-1] += f"; int8: accuracy {made.accuracy_before:.2%} becomes {made.accuracy:.2%}"
        if hub is not None:
            found[str(export_hub(opened, hub, licence=licence))] = {}
            lines.append(f"{hub}: weights, configuration and card")
    emit(found, as_json=as_json, text="\n".join(lines))


@app.command()
@click.argument("run", type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@options.trust
@options.device
@options.debug
def serve(run, port, no_browser, trust, device) -> None:
    """Answer for pictures on a local page: drop one, paste it, or use the camera.

    The page shows the most probable classes with calibrated confidence, where the evidence lies for any of
    them, and the nearest training images. It is there for this machine alone; Ctrl-C ends it.
    """
    import webbrowser

    from sightline.cli.console import log_shown
    from sightline.deploy import Answerer, make_server
    from sightline.runs import load_run

    with log_shown(to_stderr=True, quiet=False):
        answerer = Answerer(load_run(run, trust=trust), trust=trust, device=device)
    with make_server(answerer, port=port) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        click.echo(f"{address}  (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(address)
        server.serve_forever()
