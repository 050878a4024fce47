"""Write the reference pages that follow from the code: docs/reference/*.md.

    python scripts/docs/generate.py

Runs in the project's environment with the extra "serve". The API pages name what mkdocstrings
documents; command line, settings and HTTP are rendered here, from Typer, Pydantic and OpenAPI.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

DOCS = Path(__file__).parents[2] / "docs"
NOTE = "<!-- Written by scripts/docs/generate.py; do not edit. -->\n"
Lines = Iterator[str]


def main() -> None:
    pages = {
        "api": api_page(),
        "baselines": namespace_page("baselines", BASELINES_INTRO),
        "splits": namespace_page("splits", SPLITS_INTRO),
        "cli": cli_page(),
        "settings": settings_page(),
        "http": http_page(),
    }
    for name, lines in pages.items():
        write(DOCS / "reference" / f"{name}.md", lines)


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(NOTE + "\n".join(lines) + "\n", encoding="utf-8")


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Lines:
    header = list(header)
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(cell(each) for each in row) + " |"
    yield ""


def cell(text: str) -> str:
    text = re.sub(r":[a-z]+:`[~.]*([^`]+)`", r"`\1`", text)  # Sphinx roles of docstrings
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# -- Python --------------------------------------------------------------------------------------

API_INTRO = """\
# Python API

`import genrec` gives the names on this page. They are loaded on first use, so the import itself
costs nothing. [Baselines](baselines.md) and [splits](splits.md) have pages of their own.

The main path uses five of them: [your data](../start/your-data.md) become a `Dataset`,
`leave_last_out` makes a `Split`, `GenRec` is fitted on it, `evaluate` measures it, and
`compare` sets it beside other models.
"""
BASELINES_INTRO = """\
# Baselines

`genrec.baselines` holds the recommenders that need no language model. Each one has the same three
methods as `GenRec`: `fit`, `recommend` for one history, and `recommend_batch` for many.
[Choose a prior](../guides/choose-a-prior.md) tells which of them can also stand beside the language
model.
"""
SPLITS_INTRO = """\
# Splits

`genrec.splits` cuts a data set into what models learn from and what they are tested on.
[Histories and splits](../concepts/splits.md) explains the two rules and when to use which.
"""


def api_page() -> Lines:
    root = import_module("genrec")
    yield API_INTRO
    names = [name for name in root.__all__ if not name.startswith("__")]
    objects = {name: getattr(root, name) for name in names}
    first = ["GenRec", "Config", "Session", "Dataset", "Catalogue", "Histories"]
    names.sort(key=lambda name: (first.index(name) if name in first else len(first), name.lower()))
    for name in names:
        found = objects[name]
        if not isinstance(found, ModuleType) and not in_namespace(found):
            yield from directive(found)


def namespace_page(name: str, intro: str) -> Lines:
    yield intro
    if name == "baselines":
        yield from table(("in `genrec compare`", "in Python", "what it does"), named_baselines())
    module = namespace(name)
    names = getattr(module, "__all__", None) or vars(module)
    for each in (getattr(module, name) for name in names if not name.startswith("_")):
        if (inspect.isclass(each) or inspect.isfunction(each)) and in_namespace(each):
            yield from directive(each)


def named_baselines() -> Iterator[tuple[str, str, str]]:
    from genrec.baselines.registry import BASELINES

    for name, make in BASELINES.items():
        made = type(make(0))
        shown = (
            made.__name__
            if hasattr(namespace("baselines"), made.__name__)
            else f"{made.__module__}.{made.__name__}"
        )
        yield f"`{name}`", f"`{shown}`", (inspect.getdoc(made) or "").split("\n\n")[0]


def namespace(name: str) -> ModuleType:
    try:
        return import_module(f"genrec.{name}")
    except ModuleNotFoundError:
        return import_module(f"genrec.data.{name}")


def in_namespace(found: Any) -> bool:
    """Whether a name stands on the page of baselines or splits."""
    where = str(found.__module__)
    if where.startswith("genrec.collaborative"):
        return hasattr(namespace("baselines"), found.__name__)
    return where.startswith(("genrec.baselines", "genrec.data.splits", "genrec.splits"))


def directive(found: Any) -> Lines:
    yield f"::: {found.__module__}.{found.__qualname__}"
    yield "    options:"
    yield f"      heading: {found.__name__}"
    yield f"      toc_label: {found.__name__}"
    if found.__name__ == "GenRec":  # its base class has no entry of its own
        yield "      inherited_members: true"
    if fields := getattr(found, "model_fields", {}):  # the page of settings has them
        methods = [name for name in vars(found) if name not in fields and not name.startswith("_")]
        yield f"      members: [{', '.join(name for name in methods if name in OWN_METHODS)}]"
    yield ""


OWN_METHODS = ("create", "with_budget")


# -- command line --------------------------------------------------------------------------------


CLI_INTRO = """\
# Command line

Every command prints its own help: `genrec VERB --help`. Exit codes: 0 means done; 2 means that the
input is wrong, and one message tells how to correct it; 1 is a fault of GenRec.
"""


def cli_page() -> Lines:
    import typer

    from genrec.cli.app import app

    root = typer.main.get_command(app)
    yield CLI_INTRO
    yield from table(("command", "what it does"), overview(root, "genrec"))
    yield from command_sections(root, "genrec")


def overview(group: Any, path: str) -> Iterator[tuple[str, str]]:
    for name, command in group.commands.items():
        full = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from overview(command, full)
        else:
            anchor = full.replace(" ", "-")
            yield f"[`{full}`](#{anchor})", summary(command)


def summary(command: Any) -> str:
    return str((command.help or "").split("\n\n")[0].rstrip("."))


def command_sections(group: Any, path: str) -> Lines:
    for name, command in group.commands.items():
        full = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from command_sections(command, full)
            continue
        yield f"## `{full}` {{ #{full.replace(' ', '-')} }}\n"
        yield f"{command.help or ''}\n"
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        shown = " ".join(argument_of(p) for p in arguments)
        needed = " ".join(f"{p.opts[0]} {p.name.upper()}" for p in options if p.required)
        yield f"```sh\n{' '.join(filter(None, (full, shown, needed, '[OPTIONS]')))}\n```\n"
        rows = [(f"`{argument_of(p)}`", "", help_of(p)) for p in arguments]
        rows += [(names_of(p), default_of(p), help_of(p)) for p in options if p.name != "help"]
        if rows:
            yield from table(("argument or option", "default", "meaning"), rows)


def argument_of(parameter: Any) -> str:
    name = parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def names_of(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def help_of(parameter: Any) -> str:
    return str(getattr(parameter, "help", "") or "")


def default_of(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is None or option.default is False or callable(option.default):
        return ""
    return f"`{option.default}`"


# -- settings ------------------------------------------------------------------------------------


SETTINGS_INTRO = """\
# Settings

## Of a model

These are the fields of `Config`. Give them as keyword arguments, `GenRec(lora_rank=8)`, or on the
command line as `--set lora_rank=8`. An unknown name is an error.
"""
PAPER_INTRO = """\
## Of the paper's recipe

`recipe=paper` (on the command line `--recipe paper`) changes these defaults. Settings that you give
yourself still take precedence.
"""


def settings_page() -> Lines:
    from genrec.config import PAPER_SETTINGS, Config
    from genrec.serving.config import ServeConfig

    yield SETTINGS_INTRO
    yield from table(
        ("setting", "default", "values", "meaning"),
        (
            (
                f"`{name}`",
                f"`{value_of(field.get_default(call_default_factory=True))}`",
                values_of(field),
                field.description or "",
            )
            for name, field in Config.model_fields.items()
        ),
    )
    yield PAPER_INTRO
    paper = ((f"`{name}`", f"`{value_of(value)}`") for name, value in PAPER_SETTINGS.items())
    yield from table(("setting", "with `recipe=paper`"), paper)
    yield "## Of the service\n"
    yield "`genrec serve RUN --set max_batch=32` changes one of these limits.\n"
    yield from table(
        ("setting", "default", "meaning"),
        (
            (
                f"`{name}`",
                "" if field.is_required() else f"`{value_of(field.default)}`",
                field.description or "",
            )
            for name, field in ServeConfig.model_fields.items()
        ),
    )


def value_of(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)


def values_of(field: Any) -> str:
    """The type of a field and its bounds, in words."""
    rules = field.metadata
    bounds = [
        f"{sign}\N{NO-BREAK SPACE}{getattr(r, key)}"
        for r in rules
        for key, sign in SIGNS
        if hasattr(r, key)
    ]
    return ", ".join([words_of(field.annotation), *bounds])


def words_of(annotation: Any) -> str:
    if annotation in PLAIN:
        return PLAIN[annotation]
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return "list"
    if get_origin(annotation) is Annotated:
        return words_of(get_args(annotation)[0])
    return " or ".join(dict.fromkeys(words_of(each) for each in get_args(annotation)))


PLAIN = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "none",
}
SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


# -- HTTP ----------------------------------------------------------------------------------------


HTTP_INTRO = """\
# HTTP API

`genrec serve RUN` answers these requests. The same description is served as `/openapi.json` and,
for people, at `/docs`. [Serve](../guides/serve.md) shows examples. Errors have the form of RFC 9457
(`application/problem+json`). If the service has keys, send yours as `Authorization: Bearer KEY` or
`X-API-Key: KEY`.

Every request under `/v1` may also get one of these answers; the body is a
[ProblemBody](#problembody).
"""


def http_page() -> Lines:
    schema = openapi()
    yield HTTP_INTRO
    yield from table(("status", "when"), common_answers(schema).items())
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield from operation_section(method.upper(), path, operation, common_answers(schema))
    yield "## Bodies\n"
    for name, model in schema["components"]["schemas"].items():
        if name not in ("HTTPValidationError", "ValidationError"):
            yield from schema_section(name, model)


def common_answers(schema: Mapping[str, Any]) -> dict[str, str]:
    """Errors that every operation lists."""
    under = (operations for path, operations in schema["paths"].items() if path.startswith("/v1"))
    found = [each["responses"] for operations in under for each in operations.values()]
    shared = set.intersection(*(set(each) for each in found)) - {"200"}
    return {status: found[0][status]["description"] for status in sorted(shared)}


def openapi() -> Mapping[str, Any]:
    """The service's description; the application is never started, so no run is needed."""
    from genrec.serving.app import create_app
    from genrec.serving.config import ServeConfig

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(ServeConfig.create(run=folder, store="sqlite://"))
        found: Mapping[str, Any] = app.openapi()
        return found


def operation_section(
    method: str, path: str, operation: Mapping[str, Any], common: Iterable[str]
) -> Lines:
    yield f"## `{method} {path}`\n"
    yield f"{operation.get('description') or operation.get('summary', '')}\n"
    parameters = [
        p for p in operation.get("parameters", ()) if p["in"] != "path" or p.get("description")
    ]
    if parameters:
        rows = (
            (
                f"`{p['name']}`",
                p["in"],
                kind(p["schema"]),
                default(p["schema"]),
                p.get("description", ""),
            )
            for p in parameters
        )
        yield from table(("parameter", "in", "type", "default", "meaning"), rows)
    if body := operation.get("requestBody"):
        yield f"Body: {kind(body['content']['application/json']['schema'])}\n"
    answers: list[tuple[str, str, str]] = []
    for status, answer in operation["responses"].items():
        if status in common:
            continue
        content = answer.get("content", {}).get("application/json", {}).get("schema", {})
        answers.append(
            (
                status,
                kind(content) if content else "",
                answer["description"].replace("Successful Response", "done"),
            )
        )
    yield from table(("status", "answer", "when"), answers)


def schema_section(name: str, model: Mapping[str, Any]) -> Lines:
    yield f"### {name}\n"
    if text := model.get("description"):
        yield f"{text}\n"
    needed = model.get("required", ())
    rows = (
        (
            f"`{key}`",
            kind(field),
            "required" if key in needed else default(field),
            field.get("description", ""),
        )
        for key, field in model.get("properties", {}).items()
    )
    yield from table(("field", "type", "default", "meaning"), rows)


def default(field: Mapping[str, Any]) -> str:
    return f"`{field['default']}`" if "default" in field and field["default"] is not None else ""


def kind(field: Mapping[str, Any]) -> str:
    """The type of a JSON schema, in words, with a link where it has a section."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in field:
            return " or ".join(dict.fromkeys(kind(each) for each in field[key]))
    if field.get("type") == "array":
        return f"list of {kind(field.get('items', {}))}"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"object of {kind(field['additionalProperties'])}"
    bounds = [f"{sign}\N{NO-BREAK SPACE}{field[key]}" for key, sign in JSON_BOUNDS if key in field]
    return ", ".join([str(field.get("type", "any")), *bounds])


JSON_BOUNDS = (
    ("minimum", "≥"),
    ("exclusiveMinimum", ">"),
    ("maximum", "≤"),
    ("minLength", "length ≥"),
    ("maxLength", "length ≤"),
)


if __name__ == "__main__":
    main()
