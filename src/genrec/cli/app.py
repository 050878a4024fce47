"""The `genrec` command: registers all subcommands and turns errors into exit codes.

Commands import heavy modules inside their bodies, so that `genrec --help` starts quickly.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from genrec.cli import compare, data, recommend, runs, serve, study
from genrec.cli.options import Json
from genrec.cli.output import announce, print_json
from genrec.errors import GenRecError

app = typer.Typer(
    name="genrec",
    help="Recommend the next item by letting a language model generate its title.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


data_app = typer.Typer(
    help="List and download the data sets and language models that GenRec knows by name.",
    no_args_is_help=True,
)
data_app.command("list")(data.data_list)
data_app.command("get")(data.data_get)
app.add_typer(data_app, name="data")


events_app = typer.Typer(
    help="Export or delete the user events that a service has stored.", no_args_is_help=True
)
events_app.command("export")(serve.events_export)
events_app.command("delete")(serve.events_delete)
app.add_typer(events_app, name="events")

for command in (
    data.prepare,
    runs.train,
    runs.fuse,
    runs.evaluate,
    compare.compare,
    study.study,
    recommend.recommend,
    runs.demo,
    runs.export,
    serve.serve,
    serve.keys,
):
    app.command()(command)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation: print versions, devices, threads, caches and missing parts."""
    from genrec.doctor import diagnose, render

    diagnosis = diagnose()
    if as_json:
        return print_json(diagnosis.to_json())
    return render(diagnosis)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version of GenRec and exit.")
    ] = False,
) -> None:
    announce()
    if version:
        from genrec._version import __version__

        print(__version__)
        raise typer.Exit


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a full or failing disk; they often name no file."""
RESUMING = {"train", "demo", "compare", "study"}
"""Commands that go on where they were interrupted."""
INTERRUPTED = 130
"""Exit code that typer gives after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    The exit code is 0 on success, 2 for wrong input or an unusable file, 130 after an interrupt,
    and 1 for a fault in GenRec itself.

    Args:
        arguments: command-line arguments without the program name; ``sys.argv`` if ``None``.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(args=given, prog_name="genrec")
    except GenRecError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno not in DISK:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print(f"interrupted{_resuming(given)}", file=sys.stderr)
        raise


def _resuming(given: Sequence[str]) -> str:
    """Return how an interrupted command goes on; most commands have nothing to go on with."""
    if not RESUMING & {*given[:1]}:
        return ""
    which = "the command without --restart" if "--restart" in given else "the same command"
    return f"; run {which} again to resume"
