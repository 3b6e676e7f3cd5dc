"""Read a study file; say everything that is wrong with it at once, with line numbers."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from eocausal.errors import StudyError
from eocausal.studies.evaluation_rules import contradictions_of
from eocausal.studies.impact_rules import contradictions_of_impact
from eocausal.studies.schema import Ingestion, Opening, Study
from eocausal.studies.schema_evaluation import Evaluation
from eocausal.studies.schema_imagery import LooksSection
from eocausal.studies.schema_impact import ImpactStudy
from eocausal.studies.study_rules import contradictions_of_trial, wrong_sources

__all__ = [
    "EvaluationFile",
    "ImpactFile",
    "IngestFile",
    "Location",
    "OpenedFile",
    "StudyFile",
    "line_of",
    "load_study",
    "read_any",
    "read_ingestion",
    "read_study",
]

Location = tuple[str | int, ...]
S = TypeVar("S", bound=Opening)

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 20
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}")


class _Loader(yaml.SafeLoader):
    """Safe loader that leaves dates and yes/no as text and knows true and false only."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, rule) for tag, rule in rules if tag.rpartition(":")[2] not in ("timestamp", "bool")
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A study and the file it was read from.

    Attributes
    ----------
    path
        The YAML file.
    study
        Its content, with ``data.root`` absolute.
    lines
        Line of every key, so that later problems can be located too.
    """

    path: Path
    study: Opening
    lines: Mapping[Location, int] = field(repr=False)

    def problem(self, where: Location, text: str) -> str:
        """Write a problem with its line and key."""
        return locate(self.lines, where, text)

    @property
    def root(self) -> Path:
        """Folder of the data."""
        return Path(self.study.data.root)


@dataclass(frozen=True, slots=True)
class IngestFile(OpenedFile):
    """What is to be ingested, and the file it was read from."""

    study: Ingestion


@dataclass(frozen=True, slots=True)
class ImpactFile(OpenedFile):
    """A study of an event, and the file it was read from."""

    study: ImpactStudy


@dataclass(frozen=True, slots=True)
class StudyFile(IngestFile):
    """A whole study and the file it was read from."""

    study: Study


@dataclass(frozen=True, slots=True)
class EvaluationFile(IngestFile):
    """An evaluation of projects that were placed, and the file it was read from."""

    study: Evaluation


def locate(lines: Mapping[Location, int], where: Location, text: str) -> str:
    """Return ``line N: a.b[0]: text``, with the line of the nearest key that has one."""
    line = next((lines[where[:i]] for i in range(len(where), -1, -1) if where[:i] in lines), 1)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return f"line {line}: {name.lstrip('.') + ': ' if name else ''}{text}"


def load_study(path: Path | str) -> Study | Evaluation | ImpactStudy:
    """Read a study; see :func:`read_study`."""
    return read_study(path).study


def read_study(path: Path | str) -> StudyFile | EvaluationFile | ImpactFile:
    """Read and check a study file.

    Parameters
    ----------
    path
        A YAML file; ``${NAME:-default}`` in ``data.root`` is taken from the environment.

    Raises
    ------
    StudyError
        With every problem found, as ``line 14: estimate.covariate: unknown key; closest: ...``.
    """
    path = Path(path)
    value, lines, problems = _parse(path)
    if not problems and _only_ingests(value):
        raise StudyError(
            f"The study {path} only ingests: it has no design and no estimate.",
            cause="There is nothing to estimate without data.units, design and estimate.",
            next_step=f"Add these, or build what it asks for: eocausal ingest {path} --out FOLDER "
            "(--plan says beforehand what it would do; encode in place of ingest makes features).",
        )
    return _whole(path, value, lines, problems)


def _whole(
    path: Path, value: Any, lines: Mapping[Location, int], problems: list[str]
) -> StudyFile | EvaluationFile | ImpactFile:
    """Check a study by what its event, its design, or else its data, says it is."""
    if isinstance(value, dict) and "event" in value:
        return ImpactFile(path, _checked(ImpactStudy, path, value, lines, problems), lines)
    if _evaluates(value):
        return EvaluationFile(path, _checked(Evaluation, path, value, lines, problems), lines)
    return StudyFile(path, _checked(Study, path, value, lines, problems), lines)


def read_ingestion(path: Path | str) -> IngestFile:
    """Read what a study file says of places and imagery; it need not have a design.

    Raises
    ------
    StudyError
        As of :func:`read_study`, and if it is of an event on a series.
    """
    file = read_any(path)
    if isinstance(file, IngestFile):
        return file
    raise StudyError(
        f"The study {path} has no places and no imagery to ingest.",
        cause="It is of an event on a series.",
        next_step=f"Run it: eocausal run {path} --out FOLDER.",
    )


def read_any(path: Path | str) -> IngestFile | ImpactFile:
    """Read a study of any kind.

    Raises
    ------
    StudyError
        As of :func:`read_study`.
    """
    path = Path(path)
    value, lines, problems = _parse(path)
    if isinstance(value, dict) and not _only_ingests(value):
        return _whole(path, value, lines, problems)
    return IngestFile(path, _checked(Ingestion, path, value, lines, problems), lines)


def _evaluates(value: Any) -> bool:
    """Whether a study evaluates projects that were placed."""
    design, data = _part(value, "design"), _part(value, "data")
    return "placement" in design or ("projects" in data and "trial" not in design)


def _part(value: Any, name: str) -> dict[str, Any]:
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


def _only_ingests(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    data = value.get("data")
    named = set(value) | (set(data) if isinstance(data, dict) else set())
    places = isinstance(data, dict) and bool({"imagery", "panel"} & set(data))
    whole = {"units", "projects", "design", "estimate", "checks", "report"}
    return places and not whole & named


def _checked(
    model: type[S], path: Path, value: Any, lines: Mapping[Location, int], problems: list[str]
) -> S:
    """Check a plain value against a model, and for what no single key shows."""
    study: S | None = None
    try:
        study = model.model_validate(value)
    except ValidationError as error:
        problems += [
            locate(lines, *_explain(model, item))
            for item in error.errors(include_url=False, include_context=True)
        ]
    if isinstance(study, Ingestion):
        problems += [locate(lines, *found) for found in wrong_sources(study)]
    if isinstance(study, ImpactStudy):
        problems += [locate(lines, *found) for found in contradictions_of_impact(study)]
    if isinstance(study, Study):
        problems += [locate(lines, *found) for found in contradictions_of_trial(study)]
    if isinstance(study, Evaluation):
        problems += [locate(lines, *found) for found in contradictions_of(study)]
    roots: dict[str, str] = {}
    base = path.parent
    for name in ("root", "imagery", "panel"):
        try:
            roots[name] = str((base / _expand(_raw_root(value, name))).resolve())
        except KeyError as error:
            text = f"the environment has no variable {error.args[0]!r}, and no default is given"
            where = ("data", "root") if name == "root" else ("data", name, "root")
            problems.append(locate(lines, where, text))
        if name == "root":
            base = Path(roots.get(name, base))
    if problems or study is None:
        raise _error(path, sorted(dict.fromkeys(problems), key=line_of))
    return _with_roots(study, roots)


def _with_roots(study: S, roots: Mapping[str, str]) -> S:
    changed: dict[str, Any] = {"root": roots["root"]}
    for name in ("imagery", "panel"):
        section: LooksSection | None = getattr(study.data, name, None)
        if section is not None:
            changed[name] = section.model_copy(update={"root": roots[name]})
    return study.model_copy(update={"data": study.data.model_copy(update=changed)})


def _raw_root(value: Any, name: str) -> str:
    """Return what is written for the root of the data, or of a section."""
    data = value.get("data") if isinstance(value, dict) else None
    holder = data if name == "root" else data.get(name) if isinstance(data, dict) else None
    root = holder.get("root", ".") if isinstance(holder, dict) else "."
    return root if isinstance(root, str) else "."


def _error(path: Path, problems: Sequence[str]) -> StudyError:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return StudyError(
        f"The study {path} has {count}.",
        cause="It cannot be run as it is.",
        next_step="Correct the lines below; `eocausal init` writes a study to compare with.",
        problems=problems,
    )


def line_of(problem: str) -> int:
    """Return the line that a problem names."""
    found = re.match(r"line (\d+)", problem)
    return int(found[1]) if found else 0


def _expand(text: str) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}`` from the environment."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise KeyError(match["name"])
        return found

    return os.path.expanduser(_VARIABLE.sub(value, text))


def _parse(path: Path) -> tuple[Any, dict[Location, int], list[str]]:
    """Return the plain value, the line of every key, and repeated keys as problems."""
    try:
        raw = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise StudyError(
            f"The study {path} cannot be read.",
            cause=f"{error.strerror}.",
            next_step="Check the path; `eocausal init NAME` writes a study to start from.",
        ) from error
    if raw is None:
        raise _error(path, [f"line 1: the file is larger than {MAX_BYTES:,} bytes"])
    lines: dict[Location, int] = {}
    problems: list[str] = []
    try:
        loader = _Loader(raw.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            raise _error(path, ["line 1: the file is empty"])
        for where, line, problem in _walk(node):
            lines.setdefault(where, line)
            if problem:
                problems.append(locate({where: line}, where, problem))
            if len(lines) > MAX_NODES or len(where) > MAX_DEPTH:
                raise _error(path, [f"line {line}: too many or too deeply nested values"])
        return loader.construct_document(node), lines, problems
    except UnicodeDecodeError as error:
        raise _error(path, [f"line 1: the file is not UTF-8 text ({error.reason})"]) from error
    except RecursionError as error:
        raise _error(path, ["line 1: too deeply nested values"]) from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        text = getattr(error, "problem", None) or " ".join(str(error).split())
        raise _error(path, [f"line {line}: this is not YAML: {text}"]) from error


def _walk(node: yaml.Node, where: Location = ()) -> Iterator[tuple[Location, int, str]]:
    """Yield every value's location, its line, and what is wrong with its key."""
    yield where, node.start_mark.line + 1, ""
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            again = f"the key is given twice, first in line {first[name]}" if name in first else ""
            yield (*where, name), line, again
            first.setdefault(name, line)
            yield from _walk(value, (*where, name))
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _walk(item, (*where, i))


def _model_at(whole: type[BaseModel], where: Location) -> type[BaseModel] | None:
    """Return the section that the study has at a location."""
    model: type[BaseModel] | None = whole
    for part in where:
        if isinstance(part, int):
            continue
        if model is None or part not in model.model_fields:
            return None
        model = _model_in(model.model_fields[part].annotation)
    return model


def _keys(model: type[BaseModel] | None) -> list[str]:
    fields = {} if model is None else model.model_fields
    return [field.alias or name for name, field in fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)


def _near(value: Any, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    return (f"; closest: {close[0]}" if close else "") + f"; allowed: {', '.join(allowed)}"


def _explain(model: type[BaseModel], error: Any) -> tuple[Location, str]:
    """Turn one pydantic error into a location and a sentence."""
    where: Location = tuple(p for p in error["loc"] if "[" not in str(p))
    while where and where[-1] in ("float", "str"):
        where = where[:-1]
    kind, given = error["type"], _short(error["input"])
    if kind == "extra_forbidden":
        allowed = _keys(_model_at(model, where[:-1]))
        return where, "unknown key" + _near(where[-1], allowed)
    if kind == "missing":
        return where, "missing; this key is required"
    if kind == "literal_error":
        return where, f"{given} is not allowed" + _near(error["input"], _literals(error))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        allowed = _keys(_model_at(model, where))
        return where, f"{given} is not a mapping; allowed keys: {', '.join(allowed)}"
    if kind == "too_short":
        return where, "the list is empty"
    text = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "value_error":
        return where, text
    return where, f"{given}: {text[:1].lower()}{text[1:]}"


def _literals(error: Any) -> list[str]:
    return re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
