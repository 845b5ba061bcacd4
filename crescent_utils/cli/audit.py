"""Audit: what anybody's samples say about whether their model can lift itself: the table of a preflight from a file.

The file has one JSON object a line (JSONL). Its format is recognised by the fields of its first line:

  crescent   {"question": "What is 3 + 4?", "samples": ["3 + 4 = 7", "It is 8"], "gold": "7", "greedy": "7"}
             `gold` (the right answer), `greedy` (the text of the greedy answer) and `round` (a number) are optional.
             A sample may also be an object: {"text": "…", "cut": false, "log_path": -3.1, "log_answer": -0.2}, where
             all but `text` is optional: whether the token limit cut it, log p of the whole path, and log p of its
             answer after the path, in nats. `answer` in the place of `text` is an answer that has been read already.
  lm-eval    lm-evaluation-harness with --log_samples: {"doc_id": 0, "doc": {…}, "target": "7", "resps": [["…", "…"]]}
             (`repeats` of the task is the number of samples; of several filters the first one's lines count).
  vllm       the output of `vllm run-batch`: {"custom_id": "q1", "response": {"body": {"choices": [{"message": …}]}}}
             (`n` of the request is the number of samples), or a RequestOutput of vLLM's Python interface as JSON:
             {"prompt": "…", "outputs": [{"text": "…", "finish_reason": "stop", "cumulative_logprob": -3.1}]}.
             `gold`, `greedy` and `round` may be added to a line.
  ttrl       what verl writes for TTRL (trainer.rollout_data_dir, or validation_data_dir), one sample a line:
             {"input": "…", "output": "…", "gts": "7", "score": 1.0, "step": 3}. `gts` is the right answer, `step` the
             round. `score` is not looked at: in TTRL it says whether the majority was met, not whether that is right.

Lines of the same question are put together. Samples that the token limit cut count in the total; they have no answer,
so that they can neither win a vote nor be right.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import answers, runs, vote

if TYPE_CHECKING:
    import pandas as pd

ANSWER_TYPES = ("number", "choice")
SAMPLE_COLUMNS = ["round", "question", "answer", "cut", "right", "log_path", "log_answer"]


class AuditError(runs.InputError, ValueError):
    """A file that cannot be audited; the message names it, the line, the field and what is allowed."""


@dataclass(slots=True)
class Sample:
    """One sample: its text, or an answer that has been read already, and what else is known of it."""

    text: str
    answer: str | None = None
    cut: bool | None = None
    log_path: float = math.nan
    log_answer: float = math.nan


@dataclass
class Line:
    """What one line of a file says: a question, some samples of it, and what is known of it."""

    question: Any
    samples: list[Sample]
    gold: Any = None
    greedy: str | None = None
    round: Any = 0


@dataclass
class Samples:
    """A file's samples as `vote.headroom_table` takes them, with the greedy answers and how many golds there are."""

    format: str
    table: pd.DataFrame
    greedy: pd.DataFrame
    golds: int = 0


def add_command(commands: Any) -> None:
    """Add the command to the parser of `crescent`; its help ends with the formats."""
    parser = commands.add_parser(
        "audit",
        help="say of anybody's samples, from a JSONL file, whether their model can lift itself",
        description="The table of a preflight from samples that were drawn elsewhere, and the line that it ends in.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="the samples, in one of the formats below")
    parser.add_argument(
        "--greedy", type=Path, metavar="JSONL", help="greedy answers: the first sample of each question"
    )
    parser.add_argument("--answer-type", choices=ANSWER_TYPES, default="number", help="how to read answers; number")
    parser.add_argument(
        "--min-agreement", type=float, default=0.5, metavar="SHARE", help="from which a vote would be learned from; 0.5"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines in the place of the text")
    parser.set_defaults(do=command)


def command(arguments: argparse.Namespace) -> int:
    """Print what the samples of a file say; return 0."""
    if not 0 <= arguments.min_agreement <= 1:
        raise AuditError(f"--min-agreement {arguments.min_agreement}: give a share from 0 to 1")
    samples = read_samples(arguments.file, arguments.answer_type, arguments.greedy)
    table = vote.headroom_table(samples.table, samples.greedy, min_agreement=arguments.min_agreement)
    end = vote.headroom_verdict(table)
    reliability = vote.reliability_table(samples.table)
    questions = samples.table[["round", "question"]].drop_duplicates().shape[0]
    counts = {"questions": questions, "samples": len(samples.table), "golds": samples.golds}
    counts["greedy"] = int(samples.greedy["answer"].notna().sum())
    if arguments.json:
        print(as_json({
            "file": arguments.file.name, "format": samples.format, "answer_type": arguments.answer_type, **counts,
            "min_agreement": arguments.min_agreement, "verdict": end.word, "line": end.line,
            "quantities": table.to_dict("records"), "reliability": reliability.to_dict("records"),
        }))  # fmt: skip
        return 0
    print(
        f"{arguments.file}: format {samples.format}; {questions:,} questions, {len(samples.table):,} samples, "
        f"right answers of {samples.golds:,}, greedy answers of {counts['greedy']:,}\n"
    )
    print(vote.headroom_text(table))
    if len(reliability):
        print(f"\nmajorities that are right, by agreement\n{reliability.round(3).to_string(index=False)}")
    print(f"\n{end.line}")
    return 0


def as_json(value: dict[str, Any]) -> str:
    """Return JSON in which what is not known is null, since JSON has no nan."""
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False, indent=1)


# --- reading a file -------------------------------------------------------------------------------------------------


def read_samples(path: Path, answer_type: str = "number", greedy_path: Path | None = None) -> Samples:
    """Read a file of samples, and the file of greedy answers if there is one. Raises AuditError naming line and field.

    A sample's answer is read as the vote reads it, each different text once.
    """
    import pandas as pd

    format_name, lines = _lines(path)
    rows = _Rows(path)
    for number, line in lines:
        rows.add(number, line)
    if not rows.questions:
        raise AuditError(f"{path}: holds no sample; one JSON object a line is wanted, see crescent audit --help")
    if greedy_path is not None:
        for number, line in _lines(greedy_path)[1]:
            rows.add_greedy(greedy_path, number, line)
    read = _reader(answer_type)
    golds = {key: read(str(gold)) or answers.normal_form(str(gold)) for key, gold in rows.golds.items()}
    gold_classes = dict(zip(golds, answers.equality_classes(golds.values()), strict=True))
    table = pd.DataFrame(rows.columns(read), columns=[name for name in SAMPLE_COLUMNS if name != "right"])
    table["right"] = _verdicts(table["answer"], rows.keys, gold_classes)
    greedy = pd.DataFrame(list(rows.greedy), columns=["round", "question"])
    greedy["answer"] = pd.Series(answers.equality_classes(map(read, rows.greedy.values())), dtype=object)
    greedy["right"] = _verdicts(greedy["answer"], rows.greedy, gold_classes)
    if greedy_path is not None and not set(rows.greedy) & set(rows.keys):
        raise AuditError(f"{greedy_path}: none of its questions stands in {path.name}; both must name them alike")
    return Samples(format_name, table[SAMPLE_COLUMNS], greedy, len(gold_classes))


def _verdicts(classes: Iterable[Any], keys: Iterable[Any], golds: dict[Any, str | None]) -> list[bool | None]:
    """Return whether each answer is right; None where its question's right answer is not known."""
    return [answer == golds[key] if key in golds else None for answer, key in zip(classes, keys, strict=True)]


def _reader(answer_type: str) -> Callable[[str], str | None]:
    """Return what reads an answer out of a text, each different text once."""
    seen: dict[str, str | None] = {}

    def read(text: str) -> str | None:
        if text not in seen:
            seen[text] = answers.extract_answer(text, answer_type)
        return seen[text]

    return read


@dataclass
class _Rows:
    """The samples of a file while it is read."""

    path: Path
    questions: list[Any] = field(default_factory=list)
    rounds: list[Any] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    golds: dict[tuple[Any, Any], Any] = field(default_factory=dict)
    greedy: dict[tuple[Any, Any], str] = field(default_factory=dict)

    def add(self, number: int, line: Line) -> None:
        """Take the samples of one line."""
        key = line.round, line.question
        if line.gold is not None and self.golds.setdefault(key, line.gold) != line.gold:
            raise AuditError(
                f"{self.path}: line {number}: gold: {line.gold!r} differs from {self.golds[key]!r}, which an earlier "
                "line gives for the same question; give one right answer a question"
            )
        if line.greedy is not None:
            self.greedy.setdefault(key, line.greedy)
        self.samples += line.samples
        self.questions += [line.question] * len(line.samples)
        self.rounds += [line.round] * len(line.samples)

    def add_greedy(self, path: Path, number: int, line: Line) -> None:
        """Take the first sample of a line as the greedy answer to its question."""
        if not line.samples:
            raise AuditError(f"{path}: line {number}: has no answer; the greedy one is wanted")
        self.greedy.setdefault((line.round, line.question), line.samples[0].answer or line.samples[0].text)

    @property
    def keys(self) -> Iterator[tuple[Any, Any]]:
        """The question of each sample, with its round."""
        return zip(self.rounds, self.questions, strict=True)

    def columns(self, read: Callable[[str], str | None]) -> dict[str, Any]:
        """Return the samples as columns, answers as the names of their classes: equal answers are equal text."""
        read_answers = [_answer_of(sample, read) for sample in self.samples]
        different = list({answer for answer in read_answers if answer is not None})
        names: dict[Any, str | None] = dict(zip(different, answers.equality_classes(different), strict=True))
        return {
            "round": self.rounds,
            "question": self.questions,
            "answer": [names.get(answer) for answer in read_answers],
            "cut": [one.cut for one in self.samples],
            "log_path": [one.log_path for one in self.samples],
            "log_answer": [one.log_answer for one in self.samples],
        }


def _answer_of(sample: Sample, read: Callable[[str], str | None]) -> str | None:
    """Return a sample's answer in normal form; None where it was cut, or there is none."""
    if sample.cut:
        return None
    if sample.answer is None:
        return read(sample.text)
    return answers.normal_form(sample.answer) or None


def _lines(path: Path) -> tuple[str, Iterator[tuple[int, Line]]]:
    """Return the format of a file and its lines, read one by one, with their numbers."""
    objects = _objects(path)
    first = next(objects, None)
    if first is None:
        raise AuditError(f"{path}: is empty; one JSON object a line is wanted, see crescent audit --help")
    name = next((name for name, (fields, _) in FORMATS.items() if set(fields) <= first[1].keys()), None)
    if name is None:
        formats = "; ".join(f"{name}: {', '.join(fields)}" for name, (fields, _) in FORMATS.items())
        raise AuditError(
            f"{path}: line {first[0]}: has the fields {', '.join(first[1]) or 'none'}, which are of no known format; "
            f"wanted are those of one ({formats})"
        )
    read = FORMATS[name][1]

    def lines() -> Iterator[tuple[int, Line]]:
        filters = first[1].get("filter")
        for number, values in itertools.chain([first], objects):
            if values.get("filter") == filters:  # lm-eval logs an item once for each filter
                yield number, read(_Fields(path, number, values))

    return name.partition(",")[0], lines()


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON object of each line that is not blank, with the line's number."""
    try:
        with open(path, encoding="utf-8") as handle:
            for number, text in enumerate(handle, start=1):
                if not text.strip():
                    continue
                try:
                    value = json.loads(text)
                except ValueError as error:
                    raise AuditError(f"{path}: line {number}: is not JSON: {error}") from None
                if not isinstance(value, dict):
                    raise AuditError(f"{path}: line {number}: is a {type(value).__name__}; a JSON object is wanted")
                yield number, value
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise AuditError(f"{path}: is not UTF-8 text; a JSONL file is wanted") from None


# --- the formats ----------------------------------------------------------------------------------------------------


@dataclass
class _Fields:
    """The fields of one line, with checks whose errors name file, line and field."""

    path: Path
    number: int
    values: dict[str, Any]
    prefix: str = ""

    def get(self, name: str, kinds: type | tuple[type, ...], what: str, default: Any = ...) -> Any:
        """Return a field of one of the `kinds`; where it is missing or null, `default`, if there is one."""
        value = self.values.get(name)
        if value is None and default is not ...:
            return default
        is_truth_for_number = isinstance(value, bool) and bool not in (kinds if isinstance(kinds, tuple) else (kinds,))
        if not isinstance(value, kinds) or is_truth_for_number:
            got = "is missing" if name not in self.values else f"is {json.dumps(value, ensure_ascii=False)[:60]}"
            raise self.error(name, f"{got}; {what} is wanted")
        return value

    def within(self, name: str, value: Any) -> _Fields:
        """Return the fields of an object that stands in field `name`."""
        if not isinstance(value, dict):
            raise self.error(name, f"is a {type(value).__name__}; an object is wanted")
        return _Fields(self.path, self.number, value, f"{self.prefix}{name}.")

    def error(self, name: str, trouble: str) -> AuditError:
        """Return the error that names the field."""
        return AuditError(f"{self.path}: line {self.number}: {self.prefix}{name}: {trouble}")

    def extras(self) -> dict[str, Any]:
        """Return the optional fields that a line of any format may have."""
        return {
            "gold": self.get("gold", (str, int, float), "the right answer as text or number", None),
            "greedy": self.get("greedy", str, "the text of the greedy answer", None),
            "round": self.get("round", (int, str), "the number of a round", 0),
        }


NUMBER = (int, float)


def _own_line(line: _Fields) -> Line:
    samples = []
    for place, value in enumerate(line.get("samples", list, "a list of texts or objects")):
        name = f"samples[{place}]"
        if isinstance(value, str):
            samples.append(Sample(value))
            continue
        one = line.within(name, value) if isinstance(value, dict) else None
        if one is None:
            raise line.error(name, f"is {json.dumps(value)[:60]}; a text or an object with `text` is wanted")
        has_answer = "answer" in one.values
        samples.append(
            Sample(
                one.get("text", str, "the sample's text", "" if has_answer else ...),
                one.get("answer", str, "the answer as text", None),
                one.get("cut", bool, "true or false", None),
                one.get("log_path", NUMBER, "a number (nats)", math.nan),
                one.get("log_answer", NUMBER, "a number (nats)", math.nan),
            )
        )
    return Line(line.get("question", (str, int), "the question's text or number"), samples, **line.extras())


def _lm_eval_line(line: _Fields) -> Line:
    responses = line.get("resps", list, "a list with one list of texts a request")
    texts = responses[0] if len(responses) == 1 and isinstance(responses[0], list) else responses
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise line.error(
                f"resps[0][{place}]", "is no text: a log-likelihood task has no samples; log a task that generates text"
            )
    target = line.values.get("target")
    target = target[0] if isinstance(target, list) and target else target
    question = line.get("doc_id", (int, str), "the number of the item")
    gold = None if target in (None, "") else str(target)
    return Line(question, [Sample(text) for text in texts], **(line.extras() | {"gold": gold}))


def _vllm_batch_line(line: _Fields) -> Line:
    if line.values.get("error"):
        raise line.error("error", f"{json.dumps(line.values['error'])[:80]}: the request failed; take its line out")
    body = line.within("response", line.values.get("response"))
    body = body.within("body", body.values.get("body"))
    samples = []
    for place, value in enumerate(body.get("choices", list, "a list of choices")):
        choice = body.within(f"choices[{place}]", value)
        source, name = (
            (choice.within("message", value["message"]), "content") if "message" in value else (choice, "text")
        )
        text = source.get(name, str, "the sample's text", "")  # a reply may be nothing but reasoning, or empty
        log_p = _log_p(choice.values.get("logprobs"))
        samples.append(Sample(text, cut=choice.values.get("finish_reason") == "length", log_path=log_p))
    return Line(line.get("custom_id", str, "the request's name"), samples, **line.extras())


def _log_p(logprobs: Any) -> float:
    """Return the sum over the tokens of an OpenAI-like `logprobs`, of chats or completions; nan if there are none."""
    if not isinstance(logprobs, dict):
        return math.nan
    content = [token for token in logprobs.get("content") or [] if isinstance(token, dict)]
    tokens: list[Any] = [token.get("logprob") for token in content] or logprobs.get("token_logprobs") or []
    return math.fsum(tokens) if tokens and all(isinstance(token, NUMBER) for token in tokens) else math.nan


def _vllm_output_line(line: _Fields) -> Line:
    samples = []
    for place, value in enumerate(line.get("outputs", list, "a list of outputs")):
        one = line.within(f"outputs[{place}]", value)
        text = one.get("text", str, "the sample's text")
        log_p = one.get("cumulative_logprob", NUMBER, "a number (nats)", math.nan)
        samples.append(Sample(text, cut=one.values.get("finish_reason") == "length", log_path=log_p))
    return Line(line.get("prompt", str, "the prompt's text"), samples, **line.extras())


def _ttrl_line(line: _Fields) -> Line:
    text = line.get("output", str, "the sample's text")
    gold = line.get("gts", (str, int, float), "the right answer as text or number", None)
    question = line.get("input", str, "the prompt's text")
    extras = line.extras() | {"gold": gold, "round": line.get("step", (int, str), "the number of the step", 0)}
    return Line(question, [Sample(text)], **extras)


# The fields by which a format is recognised, and what reads a line of it.
FORMATS: dict[str, tuple[tuple[str, ...], Callable[[_Fields], Line]]] = {
    "crescent": (("question", "samples"), _own_line),
    "lm-eval": (("doc_id", "resps"), _lm_eval_line),
    "vllm": (("custom_id", "response"), _vllm_batch_line),
    "vllm, RequestOutput": (("prompt", "outputs"), _vllm_output_line),
    "ttrl": (("input", "output"), _ttrl_line),
}
