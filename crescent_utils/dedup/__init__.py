"""Dedup: what is too similar goes back to the model, until it is different or its tries are used up (Crescent, section 2).

In come the questions of `01_elicit`. `diversify` embeds them and runs the rejection loop; `select_diverse` is one greedy
selection by cosine. `find_contamination` lists what shares something with a benchmark item. Out go `questions` (id, question,
round, similarity, nearest), `rejected` (the same, with a reason), `attempts` (every check of every round: id, round, before,
after, neighbour, similarity, accepted, reason) and `contaminated` (id, question, sign, score, benchmark, item,
item_question). Questions and rejected together are all that came in. The rest compares protocols and measures
how diverse the pool is.
"""

from ..benchmarks import load_held_out, repeated_items
from .contamination import SIGNS, find_contamination, split_contaminated
from .diversity import count_names, count_openings, principal_plane, vendi_score
from .loop import SentenceEncoder, diversify, join_rejected
from .protocols import compare_protocols, damage_of_released_cleaner
from .similarity import nearest_other, rethreshold, select_diverse

__all__ = [
    "SIGNS",
    "SentenceEncoder",
    "compare_protocols",
    "count_names",
    "count_openings",
    "damage_of_released_cleaner",
    "diversify",
    "find_contamination",
    "join_rejected",
    "load_held_out",
    "nearest_other",
    "principal_plane",
    "repeated_items",
    "rethreshold",
    "select_diverse",
    "split_contaminated",
    "vendi_score",
]
