"""Extraction against texts worded as published models word theirs, and against GSM8K's solutions put into many endings.

Each text was read by a person; where several numbers stand in one, the comment or the wording says why it is that one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shared import BENCHMARKS, GSM8K_FOLDERS, gsm8k_solutions

from crescent_utils.answers.normal_form import normal_form
from crescent_utils.answers.reading import extract_answer

MARKS = [
    ("#### 72 clips", "72"),
    ("#### The answer is 72", "72"),
    ("####72.", "72"),
    ("#### $1,234.50", "1234.5"),
    ("#### -$5", "-5"),
    ("#### $-5", "-5"),
    ("#### - 5", "-5"),
    ("#### 50%", "50"),
    ("#### 3/4", "0.75"),
    ("#### 1 1/2", "1.5"),
    ("#### 3:30 PM", "3:30"),
    ("#### **18**", "18"),
    ("#### \\boxed{18}", "18"),
    ("#### 18 \n\nThis is because 3 and 5", "18"),
    ("#### 5 or 6", "5"),
    ("#### x = 5", "5"),
    ("#### 20 + 30 = 50", "50"),
    ("#### 18\n\n#### 20", "20"),
    ("#### Twelve", "12"),
    ("### Final Answer\n\n18 apples, for 3 days", "18"),
    ("#### 1 234", "1234"),
    ("#### Solution\nTom has 5 and 6.\nSo 11.\n", "11"),
    ("#### 1. Eggs\n16-3-4=9\n#### 2. Money\n9*2=18", "18"),
    ("#### Total cost of 3 shirts\n3*20=60\n\nSo the total is $60", "60"),
    ("She makes 9 * 2 = 18.\n####", "18"),
    ("#### None", None),
    ("$\\boxed{18 \\text{ apples}}$", "18"),
    ("\\boxed{\\text{18 apples}}", "18"),
    ("\\boxed{3\\frac{1}{2}}", "3.5"),
    ("\\boxed{50\\%}", "50"),
    ("\\boxed{\\text{Tom has } 18 \\text{ apples in } 3 \\text{ bags}}", "18"),
    ("\\boxed{18\\text{ (rounded from 17.6)}}", "18"),
    ("\\[\\boxed{18}\\]\n\nSo, in 5 days she earns 18.", "18"),
    ("She makes 18. The final answer is: $\\boxed{", "18"),
    ("\\boxed{}", None),
    ("So the answer is **$1,234.50** per month for 12 months.", "1234.5"),
    ("The answer is $\\$18$.", "18"),
    ("The answer is \\[18\\]", "18"),
    ("The answer is \\(18\\).", "18"),
    ("The answer is 18 (not 20).", "18"),
    ("answer: 5 or 6", "5"),
    ("Answer - 18", "18"),
    ("Ans. 18", "18"),
    ("Final Answer: The final answer is $18$. I hope it is correct.", "18"),
    ("The answer is 5 apples and 3 oranges.", "5"),
    ("The answer comes out to 18.", "18"),
    ("Our answer is that Tom has 18 apples.", "18"),
    ("<answer> 18 apples </answer>", "18"),
    ('{"answer": "18"}', "18"),
    ("The answer is half.", "0.5"),
    ("The answer is one third.", "1/3"),
    ("The answer is negative 5.", "-5"),
    ("The answer is minus five.", "-5"),
    ("The answer is – 5.", "-5"),
    ("The answer is −5.", "-5"),
    ("The answer is 3 and a half hours.", "3.5"),
    ("The answer is 60 minutes = 1 hour", "60"),
    ("The answer is $2.50/day x 5 days = $12.50", "12.5"),
    ("The answer is 5% of 200 = 10.", "10"),
    ("The answer is 5.\n\nBut wait, that's wrong. The correct answer is 6.", "6"),
    ("The answer is １８.", "18"),
    ("The answer is 1\u202f234.", "1234"),
    ("答案是18", "18"),
    ("The answer is", None),
    ("The answer is not given.", None),
    ("There is not enough information.", None),
    ("<think>maybe 7, or 8", None),
    ("The probability is 0.25 = 25%.", "25"),
    ("So the profit was $400 000 - $282 000 = $118 000.", "118000"),
]
RUN_ON = "\n\nTom has 5 pens and buys 2. How many pens has he?\n5 + 2 = 7\n#### 7"
HEADINGS = [  # "Answer:" that opens a whole solution, and one that gives the answer
    ("Answer: Natalia sold 48/2 = 24 clips in May. Natalia sold 48+24 = 72 clips altogether in April and May.", "72"),
    ("A: Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether in April and May.", "72"),
    ("**Answer:**\n\nIn May she sold 48/2 = 24 clips.\n\nAltogether she sold 48 + 24 = 72 clips.", "72"),
    ("Answer:\n1. In May she sold 24 clips.\n2. Altogether she sold 72 clips.", "72"),
    ("Let's find the answer: 5 eggs and 6 eggs. That makes 11 eggs.", "11"),
    ("Answer: Tom has 18 apples.\n\nExplanation: He had 20 and ate 2.", "18"),
    ("Answer: 18. He had 20 and ate 2.", "18"),
    ("Answer: 18\n\nExplanation: 3 * 6 = 18, and 18 < 20.", "18"),
    ("Final answer: There are 18 apples in 3 bags.", "18"),
    ("Answer: In 3 days, Tom earns $18.", "18"),
    ("Answer: Each of the 4 friends gets 6 cookies.", "6"),
    ("Answer: After 3 days, 18 apples are left.", "18"),
    ("Answer: She saves $20 compared to the original price of $100.", "20"),
    ("The answer is: Tom, who has 3 sisters, has 18 apples.", "18"),
    (
        "**Problem:** Janet's ducks lay 16 eggs.\n**Question:** How much does she make?\n**Solution:** 9 * 2 = 18\n#### 18",
        "18",
    ),
    ("9 * 2 = 18\n#### 18" + RUN_ON, "18"),
    ("#### How many eggs are left?\n9\n#### How much is that?\n9 * 2 = 18\n#### 18", "18"),
    ("3 + 4 = 7\n\nQuestion: What is 4 + 5?\n4 + 5 = 9", "7"),
]
SENTENCES = [
    ("Janet makes $18 every day. Here's how: she has 16 eggs, eats 3, bakes with 4, and sells 9 at $2 each.", "18"),
    ("Therefore, they have 260 sheep together if Seattle has 20 sheep.", "260"),
    ("Jerry gets $5.00 for each of the 4, that's $20.", "20"),
    ("Thus, 18 apples are left after 3 days.", "18"),
    ("So it would take Tom 18 days to save $300.", "18"),
    ("18 = 3 + 15", "18"),
    ("They need to sell 90 tickets to make $450.", "90"),
    ("It will take her 5 weeks to save $90.", "5"),
    ("She read 120 pages in 3 days.", "120"),
    ("She can fill 4 boxes with the 48 eggs.", "4"),
    ("There are 12 boys and 16 girls, so 28 students.", "28"),
    ("12 of the 28 students are boys.", "12"),
    ("Of the 28 students, 12 are boys.", "12"),
    ("In 5 years, John will be 17 years old.", "17"),
    ("13 packs are needed for 100 guests.", "13"),
    ("Tom must buy 13 packs (8 per pack) for the 100 guests.", "13"),
    ("So 240 is the total for 4 weeks.", "240"),
    ("Total: 5 (for 2 days)", "5"),
    ("She pays $80, which is $20 less than before.", "80"),
    ("She saves $20 compared to the original price of $100.", "20"),
    ("The team won 36 games, twice as many as the 18 that they lost.", "36"),
    ("So he needs 17.5 boxes, which means 18.", "18"),
    ("Spiders have twice that number, so we multiply 4*2 to find 8 legs in total.", "8"),
    ("9 - 5 = (-1)", "-1"),
    ("The area is 96 x 8 = 768 sq in", "768"),
    ("Since gas costs $2, Tony spends 40*2=$80 on gas every month,", "80"),
    ("Step 1: 5 + 13 = 18\nStep 2: Done.", "18"),
    ("So she has 18 left.\n\nCheck: 18 + 3 = 21.", "18"),
    ("She needs 18 more.\n\nTo check: 18 + 12 = 30, which is the goal.", "18"),
    ("So she has 18 left. This is 3 less than 21.", "18"),
    ("You've calculated 28 + 26 as 42.", "42"),
    ("We add 2 and 3, which results in 5.", "5"),
    ("If each of the 12 kids eats 3 slices, 36 slices are eaten.", "36"),
    ("x + 3 = 21\nx = 21 - 3\nx = 18", "18"),
    ("$18.", "18"),
    ("So the price was reduced by 20%, to $80.", "80"),
    ("\\begin{align*} x &= 36/2 \\\\ &= 18 \\end{align*}", "18"),
]


@pytest.mark.parametrize(("text", "read"), MARKS + HEADINGS + SENTENCES)
def test_reads_what_a_person_reads(text: str, read: str | None) -> None:
    assert extract_answer(text) == (None if read is None else normal_form(read))


def plain_solutions(folder: Path) -> list[tuple[str, str]]:
    """(solution without annotations and without its last line, gold) of GSM8K's items, both splits."""
    rows = gsm8k_solutions(folder, "test") + gsm8k_solutions(folder, "train")
    return [(re.sub("<<.*?>>", "", solution), gold) for solution, gold in rows]


STYLES = {
    "the words Answer: open the solution": "Answer: {s}",
    "a bold heading opens the solution": "**Answer:**\n\n{s}",
    "A: opens the solution": "A: {s}",
    "a chat in Markdown": "### Solution\n\n{s}\n\n### Final Answer\n\n**{g}**",
    "a sum at the end": "{s}\n\nTherefore, the answer is $1 \\times {g} = {g}$.",
    "a check behind it": "{s}\n\nSo the total is **{g}**.\n\nTo check: {g} + 1 is one more.",
    "display mathematics": "{s}\n\n\\[ \\text{{Total}} = {g} \\]",
    "an XML tag": "<think>{s}</think>\n<answer>{g}</answer>",
    "a problem that is said again": "**Question:** There are 16 eggs.\n\n**Solution:** {s}\n\nThe final answer is ${g}.",
    "JSON": '{s}\n\n{{"answer": "{g}"}}',
    "a second question of its own": "{s}\n#### {g}\n\nQuestion: A train goes 60 miles in 2 hours. How fast is it?",
    "a list of steps": "1. {s}\n2. Thus the answer is {g} in all 7 days.",
}


@pytest.mark.parametrize("folder", GSM8K_FOLDERS)
@pytest.mark.parametrize("style", STYLES)
def test_golds_in_the_endings_of_other_models(style: str, folder: Path) -> None:
    rows = plain_solutions(folder)[:3000]
    wrong = [g for s, g in rows if extract_answer(STYLES[style].format(s=s, g=g)) != normal_form(g)]
    # A solution that only a heading announces is read from its last sentence, of which GSM8K's people leave some in doubt.
    assert len(wrong) <= 0.01 * len(rows), wrong[:10]


@pytest.mark.parametrize("folder", GSM8K_FOLDERS)
def test_last_sentences_without_their_calculation(folder: Path) -> None:
    """Half of what tells the answer is its "="; without it the sentence has to be understood."""
    read, n = 0, 0
    for solution, gold in plain_solutions(folder):
        last = solution.splitlines()[-1]
        worked = re.search(rf"[\d$.,()% +*/x×-]+= *\$?(?={re.escape(gold)}\b)", last)
        sentence = worked and f"{last[: worked.start()]} {gold}{last[worked.end() + len(gold) :]}"
        if not sentence or re.search(r"[-+*/×=]", sentence):
            continue
        n += 1
        read += extract_answer(sentence) == normal_form(gold)
    assert n > (4000 if folder == BENCHMARKS else 20) and read >= 0.97 * n
