"""The command line: parse, call, print. Heavy modules are imported inside the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.errors import DataError, GenRecError

if TYPE_CHECKING:
    from genrec.evaluation import Evaluation, Progress
    from genrec.recommender import Influence, Recommendation
    from genrec.serving.events import EventStore

app = typer.Typer(
    name="genrec",
    help="Recommend the next item by generating its title with a language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Known data sets and backbones.", no_args_is_help=True)
app.add_typer(data_app, name="data")
events_app = typer.Typer(help="What a service has stored of its users.", no_args_is_help=True)
app.add_typer(events_app, name="events")

Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Users = Annotated[int | None, typer.Option(help="Test users, drawn by seed; all if not given.")]
Restart = Annotated[bool, typer.Option(help="Drop the checkpoints of a cut-off run.")]
Nats = Annotated[
    bool, typer.Option("--nats", help="Likelihood of the targets, too, where there is one.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


@data_app.command("list")
def data_list(
    every: Annotated[bool, typer.Option("--all", help="Each category of Amazon, too.")] = False,
    as_json: Json = False,
) -> None:
    """List data sets and backbones that are known by name."""
    from genrec.assets import list_assets

    assets = list_assets()
    if as_json:
        return _print_json([asdict(asset) for asset in assets])
    rows: dict[str, tuple[str, ...]] = {}
    for a in assets:
        family, slash, _ = a.name.partition("/")
        name = f"{family}/CATEGORY" if slash and not (every or a.cached) else a.name
        cached = "cached" if a.cached else ""
        rows.setdefault(name, (a.kind, name, cached, _megabytes(a.size), a.licence))
    # A name that is cut off cannot be typed: all of them leave no room for licences.
    shown = 4 if every else 5
    header = ("kind", "name", "", "MB", "licence")[:shown]
    _print_table(header, [row[:shown] for row in rows.values()])
    if not every:
        print("genrec data list --all names the categories.")
    return None


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument(help="See `genrec data list`.")]) -> None:
    """Fetch a data set or backbone into the cache and print where it is."""
    from genrec.assets import backbone_folder, dataset_files, list_assets

    kinds = {asset.name: asset.kind for asset in list_assets()}
    print(backbone_folder(name) if kinds.get(name) == "backbone" else dataset_files(name))


@app.command()
def prepare(
    log: Annotated[
        Path, typer.Argument(help="CSV, TSV, Parquet, JSONL(.gz), .inter, or a folder.")
    ],
    out: Annotated[Path, typer.Option(help="Data set folder to write.")],
    items: Annotated[Path | None, typer.Option(help="Item table with ids and titles.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user id.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item id.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column that orders the log.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.")] = None,
    review: Annotated[str | None, typer.Option(help="Column of the review text.")] = None,
    title: Annotated[str | None, typer.Option(help="Column of the item's title.")] = None,
    min_user: Annotated[int, typer.Option(help="k-core: interactions of each user.")] = 1,
    min_item: Annotated[int, typer.Option(help="k-core: interactions of each item.")] = 1,
    max_users: Annotated[int | None, typer.Option(help="Draw this many users.")] = None,
    shuffle_ties: Annotated[
        bool, typer.Option(help="Control: order equal timestamps at random, not by the log.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Turn a log and item titles into a data set folder."""
    from genrec.histories import prepare as prepare_dataset
    from genrec.interactions import read_interactions

    columns = {"user": user, "item": item, "timestamp": timestamp, "rating": rating}
    read = read_interactions(log, items=items, review=review, title=title, **columns)
    data = prepare_dataset(
        read,
        name=out.name,
        min_user=min_user,
        min_item=min_item,
        max_users=max_users,
        ties="shuffled" if shuffle_ties else "log",
        seed=seed,
    )
    data.save(out)
    if as_json:
        return _print_json({"folder": str(out), "fingerprint": data.fingerprint, **data.info})
    counts, catalogue = _mapping(data.info["counts"]), _mapping(data.info["catalogue"])
    print(
        f"{out}: {counts['users']} users, {counts['items']} items, "
        f"{counts['interactions']} interactions; {catalogue['untitled']} items without a title, "
        f"{catalogue['duplicate_titles']} duplicate titles told apart (details in dataset.json)"
    )
    return None


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="Known name or prepared folder.")],
    out: Annotated[Path, typer.Option(help="Run folder; a run cut off there goes on.")],
    recipe: Annotated[str, typer.Option(help="default or paper.")] = "default",
    prior: Annotated[
        str | None,
        typer.Option(help="auto, pooled, kernel, cooccurrence, popularity, sasrec, none."),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Known name, Hub id or folder.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock budget.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training data.")] = None,
    split: Annotated[str, typer.Option(help="leave-last-out or global-time.")] = "leave-last-out",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting as key=value; repeatable.")
    ] = None,
    restart: Restart = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train an adapter on a data set and write a run folder."""
    from genrec.config import parse_assignments
    from genrec.processes import is_main
    from genrec.runs import train_run

    flags = {"prior": prior, "backbone": backbone, "minutes": minutes, "epochs": epochs}
    settings: dict[str, Any] = {k: v for k, v in flags.items() if v is not None}
    settings |= {"recipe": recipe, "seed": seed, **parse_assignments(assignments or [])}
    model = train_run(dataset, out, settings, split=split, restart=restart)
    if not is_main():  # of several processes that train together
        return None
    if as_json:
        return _print_json({"run": str(out), **model.info})
    _print_likelihood(model.info)
    print(f"{out}: trained; next: genrec evaluate {out}")
    return None


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    users: Users = None,
    nats: Nats = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a run and the counting baselines on its test users; write metrics and report."""
    from genrec.runs import evaluate_run

    progress = _progress("evaluating")
    evaluations = evaluate_run(run, users=users, seed=seed, nats=nats, progress=progress)
    if as_json:
        return _print_json({each.name: each.to_json() for each in evaluations})
    _print_comparison(evaluations)
    return _print_paired(evaluations)


@app.command()
def compare(
    dataset: Annotated[str, typer.Argument(help="Known name or prepared folder.")],
    models: Annotated[
        str,
        typer.Option(help="Comma-separated: baselines, forms of GenRec, run folders; or `all`."),
    ] = "popularity,itemknn,ease,cooccurrence,pooled,sasrec,genrec",
    out: Annotated[
        Path | None, typer.Option(help="Folder; a comparison cut off there goes on.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="leave-last-out, global-time, or a folder with train, valid, test."),
    ] = "leave-last-out",
    fit: Annotated[
        str, typer.Option(help="train+valid (all before the test targets) or train.")
    ] = "train+valid",
    on: Annotated[
        str, typer.Option(help="test, or valid: to choose by, one item earlier.")
    ] = "test",
    users: Users = None,
    seeds: Annotated[int, typer.Option(help="Runs of each model that depends on a seed.")] = 1,
    minutes: Annotated[float, typer.Option(help="Training of each GenRec and P5.")] = 5.0,
    cutoffs: Annotated[str, typer.Option("--k", help="Cut-offs.")] = "5,10",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the GenRecs as key=value.")
    ] = None,
    nats: Nats = False,
    reference: Annotated[
        str | None, typer.Option(help="Model the others are paired with; else the best one.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="Of an hour on this machine, for costs per 1,000.")
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on where data or split leak.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare models on one split: tables, intervals, slices, leaks, costs, one report."""
    from genrec.compare import Plan, notes
    from genrec.compare import compare as run
    from genrec.config import parse_assignments
    from genrec.contenders import ALL

    plan = Plan(
        models=ALL if models == "all" else tuple(filter(None, models.split(","))),
        split=split,
        fit=fit,
        on=on,
        k=_numbers(cutoffs, "--k"),
        users=users,
        seed=seed,
        seeds=seeds,
        minutes=minutes,
        settings=parse_assignments(assignments or []),
        nats=nats,
        reference=reference,
        price=price,
        allow_leaks=allow_leaks,
    )
    asked = "" if on == "test" else f"-{on}"
    out = out or Path("runs") / f"compare-{Path(dataset).name}-{Path(split).name}{asked}"
    progress = _progress("evaluating")
    found = run(
        dataset,
        plan,
        out,
        say=lambda line: print(line, file=sys.stderr, flush=True),
        progress=progress,
    )
    if as_json:
        return _print_json(found.to_json())
    _print_comparison([each.evaluation for each in found.entries])
    for line in notes(found):
        print(f"note: {line}")
    print(f"{out / 'report.html'} shows it all")
    return None


@app.command()
def recommend(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    history: Annotated[
        list[str] | None, typer.Option(help="Title or item id, oldest first; repeatable.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="User id of the run's data set.")] = None,
    k: Annotated[int, typer.Option("-k", help="Number of recommendations.")] = 10,
    include_seen: Annotated[
        bool, typer.Option(help="Items of the history may come again.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(help="Only these titles or ids; repeatable.")
    ] = None,
    block: Annotated[
        list[str] | None, typer.Option(help="Never these titles or ids; repeatable.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="SQL condition on the item table, e.g. \"genres LIKE '%Comedy%'\"."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Which items of the history moved each item.")
    ] = False,
    width: Annotated[
        int | None, typer.Option(help="Beam search of this width instead of the exact search.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recommend items after a history of titles, or for a user of the data set."""
    if (history is None) == (user is None):
        raise DataError("Give either --history TITLE (repeatable) or --user ID.")
    if k < 1:
        raise DataError(f"-k must be at least 1, got {k}.")
    from genrec.model import GenRec
    from genrec.runs import user_history

    model = GenRec.from_pretrained(run)
    entries = (history if user is None else user_history(model, run, user)) or []
    found = model.recommend(
        entries,
        k,
        exclude_seen=not include_seen,
        among=model.catalogue.mask(allow=allow, block=block or (), where=where),
        exact=width is None,
        width=0 if width is None else width,
    )
    reasons = model.explain(entries, [each.title for each in found]) if explain else None
    if as_json:
        rows = [asdict(each) for each in found]
        for row, influences in zip(rows, reasons or [], strict=False):
            row["because"] = [asdict(each) for each in influences]
        return _print_json(rows)
    return _print_recommendations(found, reasons)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="Training budget.")] = 5.0,
    users: Users = 400,
    seed: Seed = 0,
    restart: Restart = False,
) -> None:
    """Train and evaluate on MovieLens-100K with SmolLM2-135M, from nothing, in minutes."""
    from genrec.demo import run_demo

    result = run_demo(
        out,
        minutes=minutes,
        users=users,
        seed=seed,
        restart=restart,
        say=lambda line: print(line, flush=True),
        progress=_progress("evaluating"),
    )
    _print_comparison(result.evaluations)
    _print_likelihood(result.info)
    print(f"\nAfter {', '.join(result.history)}:")
    _print_recommendations(result.recommendations)
    minutes_taken = sum(result.stages.values()) / 60
    print(f"\n{out / 'report.html'} shows it all; {minutes_taken:.1f} minutes in all")
    print(f'next: genrec recommend {out} --history "Fargo (1996)" -k 5')


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
) -> None:
    """Write the language model, adapter merged in, as plain transformers loads it."""
    from genrec.runs import export_run

    export_run(run, out)
    print(f'{out}: AutoModelForCausalLM.from_pretrained("{out}") loads it')


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to bind to.")] = 8000,
    store: Annotated[
        str | None,
        typer.Option(help="Event store, a SQLAlchemy URL; SQLite beside the run if not given."),
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="File of key hashes (`genrec keys`).")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes, each with a model of its own.")] = 1,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any limit as key=value; repeatable.")
    ] = None,
) -> None:
    """Serve a run: a page at /, an API under /v1 that /docs describes."""
    try:
        from genrec.serving.server import serve as start
    except ImportError as error:
        raise _without_serving(error) from None
    from genrec.config import parse_assignments

    start(
        run,
        host=host,
        port=port,
        store=store,
        api_keys=api_keys,
        workers=workers,
        limits=parse_assignments(assignments or []),
    )


@app.command()
def keys() -> None:
    """Make an API key: printed once, with the line for the file of hashes."""
    from genrec.serving.security import key_hash, new_key

    key = new_key()
    print(f"key, for the client:        {key}")
    print(f"line, for --api-keys FILE:  {key_hash(key)}")


Store = Annotated[str, typer.Option(help="SQLAlchemy URL of the event store.")]


@events_app.command("export")
def events_export(
    store: Store,
    out: Annotated[Path, typer.Option(help="Log to write, .parquet or .csv.")],
    since: Annotated[float | None, typer.Option(help="Only from this time on, seconds.")] = None,
) -> None:
    """Write the events as a log that `genrec prepare` reads: retraining closes the circle."""
    rows = _event_store(store).export(out, since=since)
    print(f"{out}: {rows} events; next: genrec prepare {out} --items ITEMS --out DATA")


@events_app.command("delete")
def events_delete(
    store: Store, user: Annotated[str, typer.Option(help="User whose events go.")]
) -> None:
    """Remove everything that is stored of a user."""
    print(f"{_event_store(store).delete_user(user)} events of {user} removed")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print versions, devices, threads and caches, and what is missing."""
    from genrec.doctor import diagnose, render

    diagnosis = diagnose()
    if as_json:
        return _print_json(diagnosis.to_json())
    return render(diagnosis)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from genrec._version import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0, with 2 if the input is wrong, with 1 if GenRec is."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="genrec")
    except GenRecError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with a training run", file=sys.stderr)
        sys.exit(130)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _event_store(url: str) -> EventStore:
    try:
        from genrec.serving.events import EventStore
    except ImportError as error:
        raise _without_serving(error) from None
    return EventStore(url, create=False)


def _without_serving(error: ImportError) -> GenRecError:
    return GenRecError(
        f'This needs the extra "serve" ({error.name} is missing): pip install "genrec[serve]".'
    )


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise DataError(f"{option} takes whole numbers such as 5,10; got {text!r}.") from None


def _mapping(value: object) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # titles are data, not markup
    Console().print(table)


def _print_comparison(evaluations: Sequence[Evaluation]) -> None:
    from rich.console import Console

    from genrec.evaluation import comparison_table

    Console().print(comparison_table(evaluations))


def _print_paired(evaluations: Sequence[Evaluation]) -> None:
    """How far the last one is from the others, user by user."""
    from genrec.evaluation import compare_paired
    from genrec.metrics import paired_difference

    subject = evaluations[-1]
    metric = f"NDCG@{max(subject.k)}"
    for other in evaluations[:-1]:
        mean, low, high = compare_paired(subject, other, metric)
        line = f"{metric} over {other.name}: {mean:+.4f} [{low:+.4f}, {high:+.4f}]"
        if subject.nats is not None and other.nats is not None:
            less, low, high = paired_difference(other.nats, subject.nats)
            line += f"; nats less: {less:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(line)


def _print_likelihood(info: Mapping[str, Any]) -> None:
    before, after = info["valid_log_likelihood"]
    if before is not None:
        print(f"validation log-likelihood per item: {before:.3f} untrained, {after:.3f} trained")


def _print_recommendations(
    found: Sequence[Recommendation], reasons: Sequence[Sequence[Influence]] | None = None
) -> None:
    rows: list[tuple[str, ...]] = [
        (str(r.rank), f"{r.probability:.4f}", r.title, r.item_id) for r in found
    ]
    columns: tuple[str, ...] = ("rank", "probability", "title", "item id")
    if reasons is not None:
        shown = [", ".join(f"{i.title} {i.effect:+.2f}" for i in each[:3]) for each in reasons]
        rows = [(*row, why) for row, why in zip(rows, shown, strict=True)]
        columns += ("moved most by (nats)",)
    _print_table(columns, rows)


def _progress(what: str) -> Progress:
    """A callback that draws a progress bar on standard error, and takes it away when done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what)

    def advance(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)
        if done >= total:
            bar.stop()

    return advance
