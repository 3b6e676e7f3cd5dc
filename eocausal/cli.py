"""The command line; every command imports what it needs when it runs."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from eocausal import __version__
from eocausal.errors import EocausalError, StudyError

if TYPE_CHECKING:
    from rich.console import Console

    from eocausal.effects import VarianceRule
    from eocausal.ingest.schedule import Scheduler
    from eocausal.studies.ingest import IngestResult
    from eocausal.studies.progress import Reporter
    from eocausal.studies.run import RunResult

__all__ = ["app", "main"]

FAILED_CHECK = 3
INTERRUPTED = 130
MACHINE = {
    getattr(errno, name, 0)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE")
}
"""Errors of the machine that users can do something about: disk full, no permission, ..."""
TABLE_WIDTH = 116

P = ParamSpec("P")

app = typer.Typer(
    name="eocausal",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Satellite imagery in, causal effects per neighborhood out.",
    epilog="Exit codes: 0 done; 1 unexpected; 2 something to correct; "
    "3 done, but a check failed; 130 interrupted (rerun to resume).",
)

StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
TableArgument = Annotated[
    Path, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet or Stata (.dta).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="WHO",
        help="Who reads images: threads:4, processes:4, or tcp://HOST:PORT of a dask scheduler. "
        "The results do not depend on it.",
    ),
]


def _console(*, error: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True)


def _stop(error: EocausalError) -> NoReturn:
    _console(error=True).print(str(error), style="red", markup=False)
    raise typer.Exit(2) from error


def _guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn typed errors and those of disks into exit code 2 and an interruption into 130."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except EocausalError as error:
            _stop(error)
        except OSError as error:
            if error.errno not in MACHINE:
                raise
            where = f" ({error.filename})" if error.filename else ""
            text = f"{error.strerror}{where}. Nothing is half written. Rerun the same command"
            _console(error=True).print(f"{text} once that is mended.", style="red", markup=False)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            _console(error=True).print("Interrupted. Rerun the same command to resume.")
            raise typer.Exit(INTERRUPTED) from None

    return wrapped


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"eocausal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


@app.command()
@_guarded
def init(
    name: Annotated[str, typer.Argument(help="Name of the study file.")] = "study.yaml",
    kind: Annotated[
        str, typer.Option(help="trial: units and an arm; evaluation: projects that were placed.")
    ] = "trial",
) -> None:
    """Write a commented study to start from."""
    from eocausal.studies.template import write_template

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    write_template(path, kind)
    typer.echo(f"Wrote {path}. Edit it, then: eocausal validate {path}")


@app.command()
@_guarded
def validate(study: StudyArgument, as_json: AsJson = False) -> None:
    """Check a study, its files and columns; list every problem at once."""
    from eocausal.studies.validate import validate_study

    try:
        found = validate_study(study)
    except StudyError as error:
        if as_json:
            _print_json({"valid": False, "error": error.fact, "problems": list(error.problems)})
            raise typer.Exit(2) from error
        raise
    if as_json:
        _print_json({"valid": True, "facts": found.facts, "problems": []})
        return
    for fact in found.facts:
        typer.echo(f"{fact}.")
    typer.echo(f"{study} is valid.")


@app.command()
@_guarded
def plan(study: StudyArgument, as_json: AsJson = False) -> None:
    """Say what a run would read, how big it is, about how long, and what it could find."""
    from eocausal.studies.plan import plan_study

    result = plan_study(study)
    if as_json:
        _print_json(result.record())
    else:
        typer.echo(result.summary())


@app.command()
@_guarded
def ingest(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="Folder for the cube and the panel.")] = Path("run"),
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be read and written; read no pixel.")
    ] = False,
    scheduler: SchedulerOption = None,
    lock: Annotated[
        str | None,
        typer.Option(help="File a search is kept in; if it is there, nothing is searched."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the cube and the panel of a study; one that was killed goes on where it was."""
    from eocausal.studies.ingest import plan_ingestion, run_ingestion

    if only_plan:
        plan = plan_ingestion(study, lock=lock)
        if as_json:
            _print_json(plan.record())
        else:
            typer.echo(plan.summary())
        return
    with _reporter() as reporter:
        result = run_ingestion(
            study, out, scheduler=_scheduler(scheduler), lock=lock, reporter=reporter
        )
    _print_ingested(result, as_json=as_json)


@app.command()
@_guarded
def encode(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="Folder for cube and embedding.")] = Path("run"),
    scheduler: SchedulerOption = None,
    as_json: AsJson = False,
) -> None:
    """Build a study's cube, turn its chips into features, and show what these can tell."""
    from eocausal.studies.ingest import run_ingestion

    with _reporter() as reporter:
        result = run_ingestion(
            study, out, scheduler=_scheduler(scheduler), encode=True, reporter=reporter
        )
    _print_ingested(result, as_json=as_json)


@app.command()
@_guarded
def run(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("run"),
    scheduler: SchedulerOption = None,
    as_json: AsJson = False,
) -> None:
    """Run a study; a second run does nothing, and one that was killed goes on where it was."""
    from eocausal.studies.run import run_study

    with _reporter() as reporter:
        result = run_study(study, out, scheduler=_scheduler(scheduler), reporter=reporter)
    _print_run(result, as_json=as_json)
    _exit_by(result)


@app.command()
@_guarded
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the world and the run.")] = Path("demo"),
    neighborhoods: Annotated[int, typer.Option(min=40, help="Places of the country.")] = 600,
    trial: Annotated[int, typer.Option(min=20, help="Places of the trial.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world.")] = 0,
    scheduler: SchedulerOption = None,
    as_json: AsJson = False,
) -> None:
    """Render a simulated country, run its trial, and print estimates against the truth."""
    from eocausal.simulate.world import WorldConfig
    from eocausal.studies.demo import run_demo

    config = WorldConfig(seed=seed, n_neighborhoods=neighborhoods, n_trial=trial)
    with _reporter() as reporter:
        result = run_demo(out, config, scheduler=_scheduler(scheduler), reporter=reporter)
    if as_json:
        _print_json(result.record())
    else:
        _print_run(result.run, as_json=False)
        typer.echo("\nAgainst the truth\n" + result.summary())
    _exit_by(result.run)


@app.command()
@_guarded
def doctor(as_json: AsJson = False) -> None:
    """Say whether this machine is ready: versions, formats, devices, disk."""
    from dataclasses import asdict

    from eocausal.studies.doctor import examine

    findings = examine()
    if as_json:
        _print_json([asdict(f) for f in findings])
    else:
        words = {True: ("ok", "green"), False: ("no", "red"), None: ("--", "yellow")}
        console = _console()
        for finding in findings:
            word, style = words[finding.ok]
            console.print(f"[{style}]{word}[/]  {finding.what:<12}", end=" ")
            console.print(finding.detail, markup=False)
    if any(f.ok is False for f in findings):
        raise typer.Exit(2)


@app.command()
@_guarded
def schema(
    of: Annotated[str, typer.Argument(help="study, or estimates (estimates.json).")],
) -> None:
    """Print the JSON Schema of study files or of estimates.json."""
    from eocausal.studies.records import estimates_schema, study_schema

    known = {"study": study_schema, "estimates": estimates_schema}
    if of not in known:
        raise StudyError(
            f"There is no schema {of!r}.",
            cause=f"Known are {', '.join(known)}.",
            next_step="Write one of these.",
        )
    _print_json(known[of]())


@app.command("trial")
@_guarded
def trial_command(
    table: TableArgument,
    arm: Annotated[str, typer.Option(help="Column: 1 treated, 0 control.")],
    outcome: Annotated[str, typer.Option(help="Column with the outcome.")],
    cluster: Annotated[str | None, typer.Option(help="Column with what was assigned.")] = None,
    block: Annotated[str | None, typer.Option(help="Column within which arms were drawn.")] = None,
    prob: Annotated[
        str | None, typer.Option(help="Probability of treatment: a number or a column.")
    ] = None,
    covariates: Annotated[str, typer.Option(help="Columns, separated by commas.")] = "",
    vcov: Annotated[
        list[str] | None,
        typer.Option(help="hc2, clustered[:COLUMN] or conley:50km; may be repeated."),
    ] = None,
    lon: Annotated[str, typer.Option(help="Column in degrees, for conley.")] = "lon",
    lat: Annotated[str, typer.Option(help="Column in degrees, for conley.")] = "lat",
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of intervals.")] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Estimate a trial's average effect from a table."""
    from eocausal.designs import Trial
    from eocausal.studies.table_commands import parse_prob, parse_vcov, trial_table

    design = Trial(arm, cluster=cluster, prob=parse_prob(prob), block=block)
    names = tuple(part.strip() for part in covariates.split(",") if part.strip())
    rules = [parse_vcov(text, cluster=cluster, lon=lon, lat=lat) for text in vcov or []]
    answer = trial_table(table, design, outcome, covariates=names, vcov=rules, level=level)
    _print_records(answer.records, as_json=as_json, notes=answer.notes)


@app.command("weight")
@_guarded
def weight_command(
    table: TableArgument,
    treatment: Annotated[str, typer.Option(help="Column: 0 untreated, 1 treated, or names.")],
    outcome: Annotated[str, typer.Option(help="Column with the outcome.")],
    covariates: Annotated[str, typer.Option(help="Confounders: columns, separated by commas.")],
    score: Annotated[
        str, typer.Option(help="aipw, hajek, ato, att, ebal or cbps.", show_default=True)
    ] = "aipw",
    estimand: Annotated[
        str | None, typer.Option(help="ate, att or ato, where the score leaves it open.")
    ] = None,
    propensity: Annotated[
        str, typer.Option(help="ridge, boost, or logit (unpenalised maximum likelihood).")
    ] = "ridge",
    folds: Annotated[
        str,
        typer.Option(help="none, 5, group:COLUMN or blocks:100km. none: models see all units."),
    ] = "5",
    repeats: Annotated[int, typer.Option(min=1, help="Times folds are dealt anew.")] = 1,
    trim: Annotated[
        str | None, typer.Option(help="crump, 0.05 (leave out below it) or clip:0.01.")
    ] = None,
    untreated: Annotated[
        str | None, typer.Option(help="Value of the treatment that means none.")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Column to cluster by.")] = None,
    conley: Annotated[
        str | None, typer.Option(help="Cutoff of the spatial variance, e.g. 50km.")
    ] = None,
    lon: Annotated[str, typer.Option(help="Column in degrees.")] = "lon",
    lat: Annotated[str, typer.Option(help="Column in degrees.")] = "lat",
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and models.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Estimate the effect of a treatment that was placed, not drawn, from a table.

    The textbook estimator, unpenalised: --score hajek --propensity logit --folds none.
    """
    from eocausal.estimators.inference import Clustered
    from eocausal.estimators.weighting import Weighting
    from eocausal.studies import weight_command as words

    model, outcomes = words.parse_models(propensity)
    decisions = Weighting(
        words.parse_score(score, estimand), model, outcomes,
        words.parse_folds(folds, lon=lon, lat=lat), repeats, words.parse_trim(trim), level=level,
    )  # fmt: skip
    rules: list[VarianceRule] = [Clustered(cluster)] if cluster is not None else []
    if conley is not None:
        rules.append(words.parse_conley(conley, lon=lon, lat=lat))
    names = tuple(part.strip() for part in covariates.split(",") if part.strip())
    asked = words.TableWeighting(treatment, outcome, names, untreated, tuple(rules), seed)
    answer = words.weight_table(table, asked, decisions)
    _print_records(answer.records, as_json=as_json, notes=answer.notes)
    if answer.records[0]["status"] == "refused":
        raise typer.Exit(FAILED_CHECK)


@app.command("rank")
@_guarded
def rank_command(
    table: TableArgument,
    score: Annotated[str, typer.Option(help="Column with doubly robust scores.")],
    priority: Annotated[str, typer.Option(help="Column with the ranking, larger first.")],
    cluster: Annotated[str | None, typer.Option(help="Column with clusters.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="autoc (default) or qini; may be repeated.")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=50, help="Half-samples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the half-samples.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Say whether a ranking finds those who gain more (RATE)."""
    from eocausal.studies.table_commands import rank_table

    answer = rank_table(
        table, score=score, priority=priority, cluster=cluster, targets=target or ["autoc"],
        repetitions=repetitions, seed=seed,
    )  # fmt: skip
    _print_records(answer.records, as_json=as_json)


def _scheduler(text: str | None) -> Scheduler | None:
    from eocausal.ingest.schedule import read_scheduler

    return None if text is None else read_scheduler(text)


@contextmanager
def _reporter() -> Iterator[Reporter]:
    """Show live progress on a terminal, nothing elsewhere."""
    from eocausal.studies.progress import Live, Quiet

    console = _console(error=True)
    if not console.is_terminal:
        yield Quiet()
        return
    with Live.on(console) as live:
        yield live


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def _print_ingested(result: IngestResult, *, as_json: bool) -> None:
    if as_json:
        _print_json(result.record())
        return
    if not result.ran:
        typer.echo("Nothing to do: every output is up to date.")
    typer.echo("\n".join([f"{result.folder}:", *(f"  {fact}." for fact in result.facts)]))


def _print_run(result: RunResult, *, as_json: bool) -> None:
    if as_json:
        _print_json(list(result.records))
        return
    if not result.ran:
        typer.echo("Nothing to do: every output is up to date.\n")
    if any("sector" in r for r in result.records):
        from eocausal.studies.evaluation_printing import sector_grid

        wide = _console()
        wide.width = max(wide.width, TABLE_WIDTH)
        wide.print(sector_grid(result.records), markup=False)
    else:
        _print_records(result.records, as_json=False)
    typer.echo(f"\n{result.claim}\n")
    styles = {"pass": "green", "warn": "yellow", "fail": "bold red"}
    console = _console()
    for check in result.checks:
        console.print(f"[{styles[check.verdict]}]{check.verdict.upper():<4}[/]", end=" ")
        console.print(f"{check.name}: {check.claim}", markup=False)
    typer.echo(f"\nReport: {result.folder / 'report.html'}")


def _print_records(records: Sequence[Any], *, as_json: bool, notes: Sequence[str] = ()) -> None:
    if as_json:
        _print_json(list(records))
        return
    from rich import box
    from rich.table import Table

    from eocausal.reports.tables import vcov_words

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    treatments = len({r.get("treatment") for r in records}) > 1
    for name in (*(("treatment",) if treatments else ()), "estimand", "method", "variance"):
        grid.add_column(name, overflow="fold")
    for name in ("estimate", "std. error", "interval", "p", "n"):
        grid.add_column(name, justify="right", no_wrap=True)
    for r in records:
        low, high = _number(r["ci_low"]), _number(r["ci_high"])
        grid.add_row(
            *([str(r.get("treatment", ""))] if treatments else []),
            r["estimand"], r["method"], vcov_words(r.get("vcov", "")), _number(r["estimate"]),
            _number(r["std_error"]), f"{low} to {high}" if low else "",
            _probability(r["p_value"]), f"{r['n']:,}" if r["n"] is not None else "",
            style="bold" if r.get("primary") else None,
        )  # fmt: skip
    console = _console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(grid, markup=False)
    for note in [*notes, *dict.fromkeys(r["note"] for r in records if r.get("note"))]:
        console.print(note, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _probability(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _exit_by(result: RunResult) -> None:
    """Exit 3 if a check failed: the run is complete, but its claim is in doubt."""
    if result.verdict == "fail":
        raise typer.Exit(FAILED_CHECK)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    app()
