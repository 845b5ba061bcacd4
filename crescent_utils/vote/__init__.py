"""Vote: the model answers each question several times, and the most frequent final answer becomes its label.

In come questions: the pool of `02_dedup`, or unlabelled ones from elsewhere as LMSI has it (`questions_of_stage`).
`worked_examples` gives what stands before each of them, by hand or the model's own, `sampled_paths` samples reasoning
paths, `vote_tables` reads their answers and votes. Out go three tables: `qa` (id, question, answer, path, agreement,
votes, total, margin, entropy, tied, gold, correct; with LMSI's formats also format and prompt), `paths` (question_id,
sample, path, answer, won, cut) and `rejected` (id, question, the same counts, reason). With exemplars of the model's
own there are two more: `exemplars` (id, question, path, answer, agreement, votes, total, gold, correct; in the order of
the prompt) and `zero_shot`, the paths that were sampled for them (question_id, sample, path, answer, kept, reason).
Golds judge labels where they are known (`known_golds`); they never make one. The other tables say how far the labels
can be trusted, from these alone. `headroom_table` says from samples and greedy answers whether a model can lift itself
(quantity, estimate, low, high, n, needs_gold, stand_in, sentence), and `headroom_verdict` puts it in one line.
"""

from ..runs import own_exemplars
from .exemplars import WorkedExamples, recorded_exemplars, worked_examples
from .headroom import answer_samples, headroom_table, path_samples, reliability_table, stored_greedy
from .labels import (
    accuracy_by_agreement,
    agreement_by_group,
    cost_of_cut,
    cost_of_released,
    kept_by_threshold,
    length_groups,
    read_voters,
    votes_needed,
)
from .likelihood import path_likelihoods, verifier_likelihoods
from .majority import majority_vote
from .tables import all_rejected, known_golds, learned_texts, sampled_paths, token_budget, vote_tables
from .unlabelled import load_unlabelled, questions_of_stage
from .verdict import Verdict, headroom_text, headroom_verdict

__all__ = [
    "Verdict",
    "WorkedExamples",
    "accuracy_by_agreement",
    "agreement_by_group",
    "all_rejected",
    "answer_samples",
    "cost_of_cut",
    "cost_of_released",
    "headroom_table",
    "headroom_text",
    "headroom_verdict",
    "kept_by_threshold",
    "known_golds",
    "learned_texts",
    "length_groups",
    "load_unlabelled",
    "majority_vote",
    "own_exemplars",
    "path_likelihoods",
    "path_samples",
    "questions_of_stage",
    "read_voters",
    "recorded_exemplars",
    "reliability_table",
    "sampled_paths",
    "stored_greedy",
    "token_budget",
    "verifier_likelihoods",
    "vote_tables",
    "votes_needed",
    "worked_examples",
]
