"""Vote: the model answers each question several times, and the most frequent final answer becomes its label.

In come questions: the pool of `02_dedup`, or unlabelled ones from elsewhere as LMSI has it (`questions_of_stage`).
`sampled_paths` samples reasoning paths, `vote_tables` reads their answers and votes. Out go `qa` (id, question, answer, path,
agreement, votes, total, margin, entropy, tied, gold, correct; with LMSI's formats also format and prompt), `paths` (question_id,
sample, path, answer, won) and `rejected` (id, question, the same counts, reason). Golds judge labels where they are known;
they never make one. The rest says how far the labels can be trusted, from these tables alone.
"""

from .labels import agreement_by, by_agreement, cost_of_released, kept_by_threshold, length_groups, votes_needed
from .likelihood import path_likelihoods
from .majority import majority_vote
from .tables import join_tables, sampled_paths, token_budget, vote_tables
from .unlabelled import MOST_ARITHMETIC, questions_of_stage

__all__ = [
    "MOST_ARITHMETIC",
    "agreement_by",
    "by_agreement",
    "cost_of_released",
    "join_tables",
    "kept_by_threshold",
    "length_groups",
    "majority_vote",
    "path_likelihoods",
    "questions_of_stage",
    "sampled_paths",
    "token_budget",
    "vote_tables",
    "votes_needed",
]
