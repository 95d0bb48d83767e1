"""Writes the report of a run, `report.json` and `report.html`, and the card of an exported model.

The page is one self-contained file. The page of a study uses `template` too.
"""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bridge_jax import display, methods
from bridge_jax.atomic import replace
from bridge_jax.config import ModelConfig, RunConfig
from bridge_jax.data.practice import checkdigits
from bridge_jax.evaluation import metrics
from bridge_jax.methods.annotations import Annotation
from bridge_jax.methods.apprenticeship import WARMUP
from bridge_jax.methods.budget_rollouts import Rollout
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.filtering import Judged
from bridge_jax.models.hub.files import is_hub_id
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import Hashes
from bridge_jax.progress import duration
from bridge_jax.report import figures, formatting, summary, workdir
from bridge_jax.report.workdir import Json, RunArtifacts
from bridge_jax.text.prompts import Mode, system_message_of, with_budget

# CSS pixels of a plot on a phone, of one beside a table, and of one as wide as the text.
NARROW, HALF, WIDE = 350, 536, 720
TEST_EXAMPLES, EXAMPLES = 4, 6
LONGEST = 1200  # characters shown of one text; a looping model fills pages
_MEASURES = {  # difficulty -> its name in a sentence, and on an axis
    "nll": ("loss on the gold answer", "nats per token of the gold answer"),
    "entropy": ("entropy", "entropy, nats per token"),
    "margin": ("margin", "margin, 1 − (p₁ − p₂)"),
}


def write(path: Path, hashes: Hashes | None = None) -> Json:
    """Writes report.json and report.html, each atomically; returns the content of the former.

    Args:
      path: the workdir; any of its stages may be missing.
      hashes: as for `workdir.load`.

    Raises:
      UserError: there is no such folder, it holds no run, or a file in it is damaged.
    """
    run = workdir.load(path, hashes)
    report = summary.summarise(run)
    report["page"] = str(run.path / "report.html")
    replace(run.path / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    replace(run.path / "report.html", _page(run, report))
    return report


@functools.cache
def template(name: str) -> jinja2.Template:
    """Returns a template of this folder, which is compiled once."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formatting.percent,
        "interval": formatting.interval,
        "count": formatting.count,
        "shortened": formatting.shortened,
        "duration": duration,
        "markdown": display.markdown,
    }
    return environment.get_template(name)


def _page(run: RunArtifacts, report: Json) -> str:
    """Returns the page; the same artifacts give the same bytes."""
    spend, plots = report.get("spend"), {}
    losses = figures.loss_lines(run.curves.values())
    if report["accuracy"]:
        accuracy = report["accuracy"], report["accuracy_interval"], formatting.titles(run.method)
        for name, width in (("narrow", NARROW), ("wide", HALF)):
            plots[name] = Markup(figures.accuracy(*accuracy, width))
    if "budgets" in report:
        plots["budgets"] = Markup(figures.budgets(report["budgets"], WIDE))
        plots["budgets_narrow"] = Markup(figures.budgets(report["budgets"], NARROW))
    # Questions and answers may hold control characters, which HTML does not allow.
    rendered = template("report.html").render(
        report=report,
        measured_against=formatting.measured_against(report),
        threshold=formatting.threshold(report),
        trusted=formatting.trusted(report),
        roles=list(report["accuracy"]),
        plots=plots,
        # An example may be by a model that this method does not measure.
        models=methods.measured() | methods.measured(run.method),
        table=run.table,
        student=formatting.tested_student(report["accuracy"]),
        chosen=formatting.chosen(report.get("selection", {})),
        spend=formatting.spend_rows(spend) if spend else [],
        spend_notes=formatting.spend_notes(spend) if spend else [],
        speed=formatting.speed,
        time=formatting.time(report["time"]),
        made_with=formatting.made_with(report["made_with"]),
        data_notes=[note for note, _ in formatting.data_notes(report["data"])] if run.data else [],
        matrix=report.get("classes", {}).get("matrix"),
        most_classes=metrics.MOST_CLASSES,
        confusion=formatting.confusion,
        selection=_selection(run),
        examples=examples(run),
        curves=[
            (run.table[stage].title, Markup(figures.curve(rows, stage, losses)))
            for stage, rows in run.curves.items()
        ],
        losses=losses,
        replies=[
            (
                run.table[stage].title,
                panel,
                Markup(figures.curve(rows, f"{stage}-{panel.title}", panel.lines)),
            )
            for stage, rows in run.curves.items()
            for panel in figures.reply_panels(rows)
        ],
        rollouts=rollouts(run),
        kinds_of_errors=checkdigits.ERRORS,
        config=json.dumps(run.config, indent=2, ensure_ascii=False) if run.config else "",
    )
    return display.plain(rendered)


def _selection(run: RunArtifacts) -> Json:
    """Draws the selection, as far as its artifacts exist."""
    if not run.selection or not run.scores:
        return {}
    position = {row["id"]: i for i, row in enumerate(run.scores)}
    selected = [position[key] for key in run.selection["ids"] if key in position]
    measure = run.config.get("selection", {}).get("difficulty", "nll")
    name, axis = _MEASURES[measure]
    difficulty = [float(row[measure]) for row in run.scores]
    pool = _shares([row["domain"] for row in run.scores])
    chosen = _shares([run.scores[i]["domain"] for i in selected])
    drawn_map = ""
    if run.embeddings is not None and min(run.embeddings.shape) >= 2:
        drawn_map = figures.embedding_map(run.embeddings, difficulty, selected)
    histograms = figures.difficulties(difficulty, [difficulty[i] for i in selected], axis)
    return {
        "measure": name,
        "difficulties": Markup(histograms),
        "domains": Markup(figures.domains(pool, chosen)) if len(pool) > 1 else "",
        "map": Markup(drawn_map),
        "points": min(len(run.scores), figures.MOST_POINTS),
        "rings": min(len(selected), figures.MOST_RINGS),
        "of_points": len(run.scores),
        "of_rings": len(selected),
        "warmed": WARMUP.name in run.manifests,
    }


def _shares(names: list[str]) -> dict[str, float]:
    return {name: count / len(names) for name, count in sorted(Counter(names).items())}


def examples(run: RunArtifacts) -> list[Json]:
    """Picks up to six questions: first test questions, then questions that the teacher was asked.

    Test questions alternate between right and wrong answers of the student, or of the last tested
    model if the student was not tested. They rotate through the domains, in the order of the file,
    so the choice does not flatter any model.

    Returns:
      Per question `id`, `split` ("test" or "pool"), `question`, `gold`, whether it was `bought`
      from the teacher, and `texts`, a list of
      `{"role", "verdict", "answer", "text"}` with the verdict "right", "shown" (right,
      by an assistant that was given the answer), "wrong", "unchecked" (there is no gold answer to
      compare with) or "no answer".
    """
    tested = {
        role: {row["id"]: row for row in run.predictions[role]}
        for role, model in methods.measured(run.method).items()
        if role in run.predictions and not model.is_before
    }
    judged = "student" if "student" in tested else next(reversed(tested), None)
    keys, found = ("id", "question", "gold"), []
    bought = {row["id"] for row in run.held_out if row["answer"] is not None}
    for row in _alternating(list(tested[judged].values()))[:TEST_EXAMPLES] if judged else []:
        others = [(role, rows[row["id"]]) for role, rows in tested.items() if row["id"] in rows]
        texts = [_text(role, other, other["completion"]) for role, other in others]
        given = {key: row[key] for key in keys} | {"bought": row["id"] in bought}
        found.append(given | {"split": "test", "texts": texts})
    written = {row["id"]: row for row in run.rationales}
    # First those for which there is an assistant's text to compare with.
    asked = sorted(run.annotations, key=lambda row: row["id"] not in written)
    for row in asked[: EXAMPLES - len(found)]:
        texts = [_text("teacher", row, row["rationale"])]
        if its := written.get(row["id"]):
            texts.append(_text("assistant", its, its["completion"], its["shown_gold"]))
        given = {key: row[key] for key in keys} | {"bought": False}
        found.append(given | {"split": "pool", "texts": texts})
    return found


def rollouts(run: RunArtifacts) -> list[Json]:
    """Picks replies of the first and of the last step of reinforcement learning, at each budget.

    Each is the first in the file of its step and budget, preferably of a question that both steps
    have asked, so the choice does not flatter the training.

    Returns:
      Per budget `budget` and `texts`, a list of `{"step", "question", "thinking", "reward",
      "verdict", "answer", "text"}`, the step counted from 1.
    """
    found = []
    for level in sorted({row["budget"] for row in run.rollouts}):
        here = [row for row in run.rollouts if row["budget"] == level]
        ends = [[row for row in here if row["step"] == here[at]["step"]] for at in (0, -1)]
        both = {row["id"] for row in ends[0]} & {row["id"] for row in ends[1]}
        texts = []
        for rows in ends if here[0]["step"] < here[-1]["step"] else ends[:1]:
            row = next((row for row in rows if row["id"] in both), rows[0])
            told = _text("student", row, row["completion"])
            keys = ("question", "thinking", "reward")
            texts.append(told | {key: row[key] for key in keys} | {"step": row["step"] + 1})
        found.append({"budget": level, "texts": texts})
    return found


def _alternating(rows: list[Prediction]) -> list[Prediction]:
    """Returns right and wrong predictions in turn, both rotating through the domains."""
    domains = sorted({row["domain"] for row in rows})
    right, wrong = (
        _round_robin(
            [r for r in rows if r["correct"] is side and r["domain"] == domain]
            for domain in domains
        )
        for side in (True, False)
    )
    # The wrong ones are shifted by one, so that neighbours differ in domain too.
    return _round_robin([right, wrong[1:] + wrong[:1]])


def _round_robin(lists: Iterable[list[Prediction]]) -> list[Prediction]:
    return [row for turn in itertools.zip_longest(*lists) for row in turn if row is not None]


def _text(
    role: str, row: Prediction | Annotation | Judged | Rollout, text: str, shown_gold: bool = False
) -> Json:
    text, verdict = text.strip(), "no answer"
    if row["answer"] is not None and row["correct"] is None:
        verdict = "unchecked"
    elif row["answer"] is not None:
        verdict = "wrong" if not row["correct"] else "shown" if shown_gold else "right"
    if len(text) > LONGEST:
        text = text[:LONGEST].rstrip() + " …"
    return {"role": role, "verdict": verdict, "answer": row["answer"], "text": text}


def _measured(report: Json, role: Role) -> dict[str, Any] | None:
    """Returns the test results of an exported model, failures included; None if not tested."""
    if role not in report["accuracy"]:
        return None
    count, accuracy = report["questions"][role], report["accuracy"][role]
    return {
        "count": count,
        "wrong": round(count * (1 - accuracy)),
        "unparsed": round(count * (1 - report["compliance"][role])),
        "interval": report["accuracy_interval"][role],
    }


def card(
    report: Json,
    config: RunConfig,
    role: Role,
    mode: Mode,
    *,
    adapter: bool = False,
    licence: str = "",
) -> str:
    """Returns the Markdown of the model card of an exported model.

    Args:
      report: the content of `report.json`.
      role: `student` or `assistant`.
      mode: the mode of its prompts in the test.
      adapter: whether the folder holds a LoRA adapter for PEFT, not the model.
      licence: the base model's license according to its metadata; "" if unknown.
    """
    model: ModelConfig = getattr(config, role)
    on_hub = is_hub_id(model.checkpoint) and not Path(model.checkpoint).exists()
    base_id = model.checkpoint if on_hub else ""
    if model.checkpoint == "smollm2-135m":
        base_id = "HuggingFaceTB/SmolLM2-135M-Instruct"
    base = base_id or model.checkpoint
    if not on_hub:
        base = base.rstrip("/").rsplit("/", 1)[-1]  # The path's folders say nothing about a model.
    data = config.data.path.rsplit("/", 1)[-1]
    budgeted = methods.states_budgets(config.method) and role == "student"
    stated = config.thinking.levels[-1] if budgeted else 0
    system = with_budget(system_message_of(config.data, mode), stated)
    text = template("card.md").render(
        report=report,
        config=config,
        role=role,
        model=model,
        adapter=adapter,
        licence=licence,
        base_id=base_id,
        measured=_measured(report, role),
        base=base,
        titles=formatting.titles(config.method),
        measured_against=formatting.measured_against(report),
        method=methods.get_method(config.method).title,
        asks=methods.asks(config.method),
        data=data or f"practice tasks ({', '.join(config.data.domains)})",
        loader="AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM",
        new_tokens=max(config.generation.max_new_tokens, stated + config.thinking.answer_tokens),
        budgets=report.get("budgets", {}).get("stated") if role == "student" else None,
        # A JSON string is also a Python literal.
        system=json.dumps(system, ensure_ascii=False),
    )
    return text + "\n"
