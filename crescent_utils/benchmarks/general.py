"""General ability without a hub: tasks that ask which of several continuations a model finds likeliest.

None is about arithmetic. Three are generated and need no file:

- `verb_agreement`: "The keys near the door" goes on with "are old", not with "is old": a noun of the other number
  stands in between half of the time (after Linzen et al. 2016, arXiv 1611.01368, and BLiMP, arXiv 1912.00582);
- `word_classes`: "A robin is a kind of" bird, and not of fish, tool …, after an example of another class;
- `copying`: the last word of a list that stood before (Olsson et al. 2022, arXiv 2209.11895).

`bbh_<task>`, such as `bbh_navigate`, is a task of BIG-Bench Hard (Suzgun et al., 2022) out of `bbh/<task>.json` in
`benchmark_dir`, whose continuations are the answers that the file has. Wording and word lists are ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import BBH_TASKS, BenchmarkError, read_rows

ITEMS = 500  # ours: of each generated task
SHOTS = 8  # ours: worked examples of each generated task
SEED = 2025  # ours
MOST_ANSWERS = 26  # ours: a task with more different answers, such as word_sorting, is none of choosing
GENERATED = ("copying", "verb_agreement", "word_classes")

_NOUNS = "key book letter picture farmer teacher dog boat table chair doctor student flower box ring river".split()
_PLACES = ["near the {}", "behind the {}", "next to the {}", "in front of the {}", "beside the {}"]
_ENDINGS = ["old", "new", "here", "small", "very nice"]
_CLASSES = {
    "bird": "robin sparrow eagle owl duck parrot pigeon swan",
    "fish": "salmon trout shark tuna cod herring carp eel",
    "fruit": "apple banana pear cherry lemon peach plum grape",
    "tool": "hammer saw wrench drill chisel screwdriver axe spade",
    "vehicle": "car bus truck train bicycle tram van motorcycle",
    "furniture": "chair table sofa desk wardrobe bookcase stool bench",
    "instrument": "violin piano flute trumpet guitar drum harp cello",
    "garment": "shirt coat jacket skirt scarf sweater dress glove",
}
_WORDS = "stone river lamp green paper cloud seven horse window silver garden bread north glass music winter".split()


@dataclass(frozen=True)
class Choice:
    """A text to go on with, its possible continuations, and the number of the right one."""

    text: str
    choices: tuple[str, ...]
    right: int


def is_general_task(name: str) -> bool:
    """Return whether a task of `general_tasks` is one of the kit's own, which need no hub."""
    return name in GENERATED or name in {f"bbh_{task}" for task in BBH_TASKS}


def general_task(name: str, *, folder: str = "", shots: int = 0) -> dict[str, Any]:
    """Return one of the kit's own general tasks as a task of lm-evaluation-harness, judged by log-likelihoods.

    `folder` holds the files of BIG-Bench Hard. Raises BenchmarkError where a file is missing, has too many different
    answers to choose from, or has no worked examples and `shots` asks for some.
    """
    examples: tuple[Choice, ...] = ()
    if name in GENERATED:
        items = _generated(name)
        items, examples = items[SHOTS:], items[:SHOTS]
    else:
        items = bbh_choices(name.removeprefix("bbh_"), folder)
    if shots > len(examples):
        raise BenchmarkError(
            f"general_shots: {shots} is too many for {name}, which has {len(examples)} worked examples"
        )
    return _harness_task(name, items, examples)


def _harness_task(name: str, items: Sequence[Choice], examples: Sequence[Choice]) -> dict[str, Any]:
    from datasets import Dataset

    def splits(**_: Any) -> dict[str, Any]:
        rows = {"test": items, "train": examples}
        return {
            split: Dataset.from_list([{"text": c.text, "choices": list(c.choices), "right": c.right} for c in chosen])
            for split, chosen in rows.items()
            if chosen
        }

    return {
        "task": name,
        "custom_dataset": splits,
        "test_split": "test",
        "fewshot_split": "train" if examples else None,
        "fewshot_config": {"sampler": "first_n"} if examples else None,
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: doc["text"],
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["right"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def bbh_choices(task: str, folder: str) -> tuple[Choice, ...]:
    """Return the items of a task of BIG-Bench Hard: its options' letters where it has them, else all answers there are.

    Raises BenchmarkError where the file is missing or its answers are too many to choose from.
    """
    path = Path(folder).expanduser() / "bbh" / f"{task}.json"
    if not folder or not path.exists():
        where = f"{path} does not exist" if folder else "benchmark_dir is not set"
        raise BenchmarkError(
            f"general_tasks: bbh_{task} needs bbh/{task}.json in benchmark_dir, and {where}; put the file of "
            f"BIG-Bench Hard there, or choose tasks that need none: {', '.join(GENERATED)}"
        )
    rows = read_rows(path)
    answers_of_all = sorted({row["target"].strip() for row in rows})
    items = []
    for row in rows:
        letters = tuple(re.findall(r"^(\([A-Z]\)) ", row["input"], flags=re.M))
        target = row["target"].strip()
        choices = letters if target in letters else tuple(answers_of_all)
        items.append(Choice(f"Q: {row['input']}\nA:", choices, choices.index(target)))
    if max(len(item.choices) for item in items) > MOST_ANSWERS:
        raise BenchmarkError(
            f"general_tasks: bbh_{task} has {len(answers_of_all)} different answers, too many to choose from; evaluate "
            "it with evaluate_on: [bbh]"
        )
    return tuple(items)


def _generated(name: str) -> tuple[Choice, ...]:
    """Return SHOTS + ITEMS different items of a generated task, always the same ones."""
    make = {"copying": _copying, "verb_agreement": _verb_agreement, "word_classes": _word_class}[name]
    generator = random.Random(f"{name} {SEED}")
    items: dict[str, Choice] = {}
    while len(items) < SHOTS + ITEMS:
        item = make(generator)
        items.setdefault(item.text, item)
    return tuple(items.values())


def _verb_agreement(generator: random.Random) -> Choice:
    subject, other = generator.sample(_NOUNS, 2)
    plural, other_plural = generator.random() < 0.5, generator.random() < 0.5
    place = generator.choice(_PLACES).format(_noun(other, other_plural))
    ending = generator.choice(_ENDINGS)
    return Choice(f"The {_noun(subject, plural)} {place}", (f"is {ending}.", f"are {ending}."), int(plural))


def _noun(word: str, plural: bool) -> str:
    return word if not plural else f"{word}es" if word.endswith("x") else f"{word}s"


def _word_class(generator: random.Random) -> Choice:
    """Ask for the class of a word after an example of another class."""
    classes = list(_CLASSES)
    other_class, right_class = generator.sample(classes, 2)
    example = generator.choice(_CLASSES[other_class].split())
    word = generator.choice(_CLASSES[right_class].split())
    text = f"A word and its class: {example} is a kind of {other_class}, {word} is a kind of"
    return Choice(text, tuple(classes), classes.index(right_class))


def _copying(generator: random.Random) -> Choice:
    words = generator.sample(_WORDS, 6)
    choices = sorted(words)
    return Choice(f"{' '.join(words)}. Again: {' '.join(words[:-1])}", tuple(choices), choices.index(words[-1]))
