"""The command line; every command imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eocausal import __version__
from eocausal.errors import StudyError
from eocausal.studies.guard import guarded
from eocausal.studies.printing import (
    console,
    print_ingested,
    print_json,
    print_records,
    print_run,
)

if TYPE_CHECKING:
    from eocausal.effects import VarianceRule
    from eocausal.ingest.schedule import Scheduler
    from eocausal.studies.progress import Reporter
    from eocausal.studies.run import RunResult

__all__ = ["app", "main"]

FAILED_CHECK = 3
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
@guarded
def init(
    name: Annotated[str, typer.Argument(help="Name of the study file.")] = "study.yaml",
    kind: Annotated[
        str,
        typer.Option(
            help="trial: units and an arm; evaluation: projects that were placed; impact: an event "
            "on a series."
        ),
    ] = "trial",
) -> None:
    """Write a commented study to start from."""
    from eocausal.studies.template import write_template

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    write_template(path, kind)
    typer.echo(f"Wrote {path}. Edit it, then: eocausal validate {path}")


@app.command()
@guarded
def validate(study: StudyArgument, as_json: AsJson = False) -> None:
    """Check a study, its files and columns; list every problem at once."""
    from eocausal.studies.validate import validate_study

    try:
        found = validate_study(study)
    except StudyError as error:
        if as_json:
            print_json({"valid": False, "error": error.fact, "problems": list(error.problems)})
            raise typer.Exit(2) from error
        raise
    if as_json:
        print_json({"valid": True, "facts": found.facts, "problems": []})
        return
    for fact in found.facts:
        typer.echo(f"{fact}.")
    typer.echo(f"{study} is valid.")


@app.command()
@guarded
def plan(study: StudyArgument, as_json: AsJson = False) -> None:
    """Say what a run would read, how big it is, about how long, and what it could find."""
    from eocausal.studies.plan import plan_study

    result = plan_study(study)
    if as_json:
        print_json(result.record())
    else:
        typer.echo(result.summary())


@app.command()
@guarded
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
            print_json(plan.record())
        else:
            typer.echo(plan.summary())
        return
    with _reporter() as reporter:
        result = run_ingestion(
            study, out, scheduler=_scheduler(scheduler), lock=lock, reporter=reporter
        )
    print_ingested(result, as_json=as_json)


@app.command()
@guarded
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
    print_ingested(result, as_json=as_json)


@app.command()
@guarded
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
    print_run(result, as_json=as_json)
    _exit_by(result)


@app.command()
@guarded
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
        print_json(result.record())
    else:
        print_run(result.run, as_json=False)
        typer.echo("\nAgainst the truth\n" + result.summary())
    _exit_by(result.run)


@app.command()
@guarded
def doctor(as_json: AsJson = False) -> None:
    """Say whether this machine is ready: versions, formats, devices, disk."""
    from dataclasses import asdict

    from eocausal.studies.doctor import examine

    findings = examine()
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        words = {True: ("ok", "green"), False: ("no", "red"), None: ("--", "yellow")}
        screen = console()
        for finding in findings:
            word, style = words[finding.ok]
            screen.print(f"[{style}]{word}[/]  {finding.what:<12}", end=" ")
            screen.print(finding.detail, markup=False)
    if any(f.ok is False for f in findings):
        raise typer.Exit(2)


@app.command()
@guarded
def schema(
    of: Annotated[str, typer.Argument(help="study, estimates (estimates.json) or impact.")],
) -> None:
    """Print the JSON Schema of study files, of estimates.json, or of what impact prints."""
    from eocausal.studies.impact_answer import impact_schema
    from eocausal.studies.records import estimates_schema, study_schema

    known = {"study": study_schema, "estimates": estimates_schema, "impact": impact_schema}
    if of not in known:
        raise StudyError(
            f"There is no schema {of!r}.",
            cause=f"Known are {', '.join(known)}.",
            next_step="Write one of these.",
        )
    print_json(known[of]())


@app.command("trial")
@guarded
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
    print_records(answer.records, as_json=as_json, notes=answer.notes)


@app.command("weight")
@guarded
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
    print_records(answer.records, as_json=as_json, notes=answer.notes)
    if answer.records[0]["status"] == "refused":
        raise typer.Exit(FAILED_CHECK)


@app.command("impact")
@guarded
def impact_command(
    table: TableArgument,
    outcome: Annotated[str, typer.Option(help="Column with the series.")],
    event: Annotated[
        list[str],
        typer.Option(
            help="First time after the event: a date (2019-05), or a row counted from 0, which is "
            "the number of rows before it (a value of a time column of numbers). FIRST..LAST ends "
            "it; may be repeated."
        ),
    ],
    end: Annotated[str | None, typer.Option(help="Last time counted.")] = None,
    learn_until: Annotated[str | None, typer.Option(help="Last time to learn from.")] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            help="Columns the event did not reach, separated by commas, or none. Every other "
            "column of numbers if not given."
        ),
    ] = None,
    season: Annotated[
        str | None, typer.Option(help="Times in a cycle: 12; several: 7,52x7 (52 of 7 steps).")
    ] = None,
    model: Annotated[
        str, typer.Option(help="level, line, trend (level and slope walk) or semi_local.")
    ] = "level",
    compat: Annotated[
        str | None, typer.Option(help="R: priors and conventions of R's CausalImpact.")
    ] = None,
    prior_level_sd: Annotated[
        float | None, typer.Option(min=0, help="Of the level, with --compat R (0.01).")
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Coefficients may walk.")] = False,
    heavy_tails: Annotated[
        bool, typer.Option("--heavy-tails", help="The residual has values far out.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="Model the logarithm.")] = False,
    logit: Annotated[bool, typer.Option("--logit", help="Model the log odds of a share.")] = False,
    looks: Annotated[str | None, typer.Option(help="Column: number of valid looks.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Column with the dates; looked for if not given.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="grid, collapsed or gibbs; the fastest if not given.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="From the posterior.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 1,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of intervals.")] = 0.95,
    held_out: Annotated[
        float | None,
        typer.Option(help="Share of the past, at its end, to predict from the rest: 0.25."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw to this file (.png, .svg).")] = None,
    series: Annotated[
        Path | None, typer.Option(help="Write a row per time to this file (.csv).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what an event did to a series, from a table with a row per time.

    As R's CausalImpact: --compat R. Its nseasons and season.duration are --season 12 or 52x7.
    """
    from eocausal.studies import impact_command as words

    named = words.ModelWords(model, season, compat, prior_level_sd, dynamic, heavy_tails, engine)
    asked = words.TableImpact(
        outcome, tuple(event), end, learn_until, controls, time=time, looks=looks
    )
    found, notes = words.impact_table(
        table, asked, words.read_model(named), words.ImpactDraws(draws, seed, level),
        words.read_transform(log=log, logit=logit),
    )  # fmt: skip
    words.write_files(found, plot=plot, series=series)
    held = None if held_out is None else found.held_out(held_out)
    if as_json:
        print_json(words.answer_record(found, notes, held))
    else:
        typer.echo(words.answer_text(found, notes, held))


@app.command("rank")
@guarded
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
    print_records(answer.records, as_json=as_json)


def _scheduler(text: str | None) -> Scheduler | None:
    from eocausal.ingest.schedule import read_scheduler

    return None if text is None else read_scheduler(text)


@contextmanager
def _reporter() -> Iterator[Reporter]:
    """Show live progress on a terminal, nothing elsewhere."""
    from eocausal.studies.progress import Live, Quiet

    screen = console(error=True)
    if not screen.is_terminal:
        yield Quiet()
        return
    with Live.on(screen) as live:
        yield live


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
