"""Dedup: what is too similar goes back to the model, until it is different or its tries run out (Crescent, section 2).

In come the questions of `01_elicit`. `diversify` embeds them and runs the rejection loop; `select_diverse` is one
greedy selection by cosine. `find_contamination` lists what shares something with a benchmark item, and
`split_contaminated` takes it out of the pool. Questions and rejected together are all that came in.

Out go four tables. `questions` has id, question, round, similarity and nearest; `rejected` has the same and a reason.
`attempts` holds every check of every round: id, round, before, after, neighbour, similarity, accepted, reason.
`contaminated` has id, question, sign, score, benchmark, item and item_question.

The rest compares protocols (`compare_protocols`) and measures how diverse the pool is (`vendi_score`).
"""

from ..benchmarks import load_held_out, repeated_items
from .contamination import SIGNS, find_contamination, split_contaminated
from .diversity import count_names, count_openings, principal_plane, vendi_score
from .loop import SentenceEncoder, diversify
from .protocols import compare_protocols, damage_of_released_cleaner
from .similarity import nearest_other, rethreshold, select_diverse, threshold_examples

__all__ = [
    "SIGNS",
    "SentenceEncoder",
    "compare_protocols",
    "count_names",
    "count_openings",
    "damage_of_released_cleaner",
    "diversify",
    "find_contamination",
    "load_held_out",
    "nearest_other",
    "principal_plane",
    "repeated_items",
    "rethreshold",
    "select_diverse",
    "split_contaminated",
    "threshold_examples",
    "vendi_score",
]
