"""The verbs of this distribution: words of a command line in, lines on the terminal out.

One file a verb, which says what it takes and hands the work to the rooms below. Only typer and the
standard library are imported up here: `mpsl --help` reads these files, numpy comes when one runs.
"""

import typer

from mpsl_runtime.purposes import Purpose
from mpsl_runtime.verbs import (
    bench,
    calibrate,
    import_model,
    inspect,
    replay,
    run,
    stream_eval,
    verify,
    view,
)
from mpsl_runtime.verbs.service import ServeCommand

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the verbs to `mpsl`."""
    app.command("import", rich_help_panel=Purpose.MAKE)(import_model.import_model)
    app.command("run", cls=ServeCommand, rich_help_panel=Purpose.RUN)(run.run)
    app.command("replay", rich_help_panel=Purpose.RUN)(replay.replay)
    app.command("view", rich_help_panel=Purpose.RUN)(view.view)
    app.command("verify", rich_help_panel=Purpose.PROVE)(verify.verify)
    app.command("inspect", rich_help_panel=Purpose.PROVE)(inspect.inspect)
    app.command("stream-eval", rich_help_panel=Purpose.PROVE)(stream_eval.stream_eval)
    app.command("calibrate", rich_help_panel=Purpose.RUN)(calibrate.calibrate)
    app.command("bench", rich_help_panel=Purpose.PROVE)(bench.bench)
