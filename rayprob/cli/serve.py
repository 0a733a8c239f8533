"""`rayprob serve`. Heavy imports stay inside; app.py puts the verb on the app."""

from typing import Annotated, Any

import typer

from rayprob.cli.terminal import Overrides, err, out

Bundles = Annotated[
    list[str],
    typer.Argument(
        metavar="BUNDLES...", help="Folders of bundles or runs, NAME=FOLDER to name them, or one serve file (YAML)."
    ),
]


def serve(
    bundles: Bundles,
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen; other than 127.0.0.1 requires a token.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="The port; 8000 by default.")] = None,
    token_file: Annotated[
        str | None, typer.Option("--token-file", metavar="FILE", help="A file with the token that requests must send.")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", metavar="N", help="Processes per bundle; by default one per GPU, or one.")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--max-replicas", metavar="N", help="Start more processes under load, up to N.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", metavar="N", help="The most images per forward pass.")] = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when everything is served.")] = False,
) -> None:
    """Serve bundles over HTTP, with a page for people.

    Answers what `rayprob predict` answers, by POST /v1/predict; the page is at /. Requests share forward passes. A bundle
    that changes is loaded again. Ctrl-C finishes open requests first; a second one does not. --set takes the keys of a serve
    file, such as limits.timeout_s.

    Examples:

      rayprob serve demo/run
      rayprob serve demo=demo/run birds=runs/birds --port 8080
      rayprob serve demo/run --host 0.0.0.0 --token-file token
    """
    from rayprob.cli.show_serve import serve_until_stopped
    from rayprob.serve.asked import read_served
    from rayprob.serve.ready import require_ready

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "token_file": token_file,
        "replicas.number": replicas,
        "replicas.most": most,
        "batch.images": batch,
    }
    file = read_served(bundles, given, overrides or ())
    require_ready(file)
    serve_until_stopped(out, err, file, as_json=as_json)
