"""Elicit: a bait prompt makes the model write questions, with no data to begin with (Crescent, section 2).

In come a domain and the parameters of `01_elicit`. `sample_completions` samples raw completions of the bait requests,
which take turns (`bait_turns`), and `read_questions` reads a question out of each, or rejects it with a reason. Out go
three tables, and questions and rejected together are all that was sampled:

| table | columns |
| --- | --- |
| questions | id, question, bait, prefix |
| rejected | id, text, bait, prefix, reason |
| yields | bait, prefix, temperature, sampled, kept, different, yield |
"""

from .questions import Question, Rejected, extract_question, released_clean
from .sampling import bait_requests, bait_turns, is_question, read_questions, sample_completions, yield_table

__all__ = [
    "Question",
    "Rejected",
    "bait_requests",
    "bait_turns",
    "extract_question",
    "is_question",
    "read_questions",
    "released_clean",
    "sample_completions",
    "yield_table",
]
