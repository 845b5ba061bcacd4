"""Reading: texts that a person has read, GSM8K's solutions in many endings, the rules of others, hostile texts.

The texts are worded as published models word theirs; where several numbers stand in one, its wording says why it is
that one.
"""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import BENCHMARKS, GSM8K_FOLDERS, grows_in_proportion, gsm8k_solutions, takes_less_than

from crescent_utils.answers import reading
from crescent_utils.answers.normal_form import normal_form
from crescent_utils.answers.reading import extract_answer


def without_annotations(solution: str) -> str:
    return re.sub("<<.*?>>", "", solution).strip()


# Texts and what a person reads as their final answer.
READ = [
    ("#### 1,234", "1234"),
    ("####5", "5"),
    ("#### -5", "-5"),
    ("#### $5", "5"),
    ("#### Answer: 5", "5"),
    ("#### 72\n\nQuestion: Tom has 5.\n#### 5", "72"),
    ("## Step 1: Add 5 and 6\n5+6=11\n\n#### Final Answer\n11", "11"),
    ("#### Step 1: Add\n2 + 3 = 5\n#### Step 2: Double\n5 * 2 = 10", "10"),
    ("She has <<48/2=24>>24 clips.\nA: 24", "24"),
    ("Half of 48 is 48/2=<<48/2=24>>24. In all 48+24=<<48+24=72>>72", "72"),
    ("The final answer is: $\\boxed{18}$", "18"),
    ("\\boxed{\\frac{1}{2}}", "1/2"),
    ("\\boxed{\\$1{,}234}", "1234"),
    ("\\boxed{18\\ \\text{dollars}}", "18"),
    ("\\boxed{18\\%}", "18"),
    ("\\boxed{x=5}", "5"),
    ("first \\boxed{3}, then \\boxed{}, \\boxed{\\text{about } 7}", "7"),
    ("The answer is $1,234.50.", "1234.5"),
    ("**Answer:** 18 dollars", "18"),
    ("Answer:\n\n**42**", "42"),
    ("The answer is:\n\n$$42$$", "42"),
    ("\\[ x = 42 \\]", "42"),
    ("The final answer is 42. I hope it is correct.", "42"),
    ("A) 5\nB) 6\nThe answer is 6", "6"),
    ("The answer is 5 apples for 3 days.", "5"),
    ("The answer is 5 + 3 = 8.", "8"),
    ("The answer is 10 times 5, or 50.", "50"),
    ("The answer is not 20 but 18.", "18"),
    ("12 is the answer to 7 + 5.", "12"),
    ("The answer is five.", "5"),
    ("It takes twenty-two days.", "22"),
    ("The answer is 1.5 million dollars.", "1500000"),
    ("The answer is 1/3 of the cake.", "1/3"),
    ("The answer is 3 1/2.", "3.5"),
    ("Answer: -\\frac{3}{4}", "-0.75"),
    ("Thus the answer is $\\frac{7}{2}$ hours.", "3.5"),
    ("The train leaves at 3:30 pm.", "3:30"),
    ("Therefore, the ratio is 6:8.", "3:4"),
    ("x = -5", "-5"),
    ("5 - 3", "3"),
    ("5 − 8 = −3", "-3"),
    ("５＋３＝８", "8"),
    ("1.2 x 10^3", "1200"),
    ("So it equals 0.8.", "0.8"),
    ("He has 20 - 5 = 15 apples after 3 days.", "15"),
    ("So she makes $18 every day. Note that 7 days make a week.", "18"),
    ("It is 15.36 minutes, which rounds down to 15 minutes", "15"),
    ("The largest has 1,250 pages because 1,250 > 1,200", "1250"),
    ("On the 3rd day he had 12 apples on the 4th floor", "12"),
    ("1. Add.\n2. Get 15.\n3. Done.", "15"),
    ("So she pays **$18** in all.\n\nLet me know if you want 2 more examples!", "18"),
    ("<think>maybe 7</think>It is 9.", "9"),
]
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
        "**Problem:** Janet's ducks lay 16 eggs.\n**Question:** How much does she make?\n"
        "**Solution:** 9 * 2 = 18\n#### 18",
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
UNREAD = ["", "   ", "no idea", "I do not know.", "The answer cannot be determined.", "The answer is unknown, 5 or 6."]
# Sampled from SmolLM2-135M-Instruct (Q4_1, T = 0.7) on elicited arithmetic questions, and read by hand.
RECORDED = [
    ("97 - 31 = 22", "22"),
    ("To calculate 22 * 2, you simply multiply 22 by itself twice, which is 48.", "48"),
    ("14 * 5 = 60\n\nThe answer is 60.", "60"),
    ("16 * 2 = 30\n\nThis is a simple example of how multiplication can be performed with a fraction. In mat", "30"),
    (
        "To calculate 8 + 6, you simply add them together: 8 + 6 = 14, and this is the result of the expression 8 + 6.",
        "14",
    ),
    ("15 divided by 21 is actually 2.5.", "2.5"),
    ("98 - 2 is 96.99.", "96.99"),
    ("12 is the answer to 32 + 1.", "12"),
    ("The answer is 421500, which is the product of 516 and 737.", "421500"),
    ("89 + 23 = 112 is an interesting and logical approach to calculate the sum of 89 and 23.", "112"),
    ("45 + 8 equals 12, which is the sum of 4 + 4.", "12"),
    ("6 + 6 = 12 in a world of numbers and equations.", "12"),
    ("Divided into two and two is four.", "4"),
    (
        "278 * 2 = 552\n\nA straightforward multiplication: 278 * 2 equals 552.\n\n"
        "A reminder: 278 is a multiple of 278.",
        "552",
    ),
    (
        "140 - 9 = 180. This is because 140 is equivalent to 1 more than 9, "
        "and subtracting 9 leaves 180 as the answer.",
        "180",
    ),
    (
        "To solve this, 5 + 4 equals 20. So, the answer is 20.\n\nYou can also think of it: 5 + 4 is equivalent to 11.",
        "20",
    ),
    ('The answer to the question "What is 4 times 6?" is 24.', "24"),
    ("Multiply 6 by 5: 6 * 5 = 30\n\nNow, take 30 and multiply it by 6, which gives us 180.\n\n", "180"),
    (
        "To add 8 together 60, you have 8 times 6, which is 48. So, 8 times 6 equals",
        "48",
    ),  # cut off at its length limit
    ("35 - 72 = 9\n\nIn this case, we can write 35 +", "9"),
    ("Since the last digit is 0, it is left with the final answer of 9.", "9"),
    ("44 - 8 = 44.\n\nIn the context of math, 44 is 8 more than 44.", "44"),
    ("10+36 = 42\n\nIn this math problem, I added 10 and 36 to get a final result of 42.", "42"),
    ("72 + 18 = 25 + 13, which equals 20.", "20"),
    ("The opposite of 8 minus 7 is 7.", "7"),
    ("16 + 18 = 30, which is indeed 16 + 18 equals 30.", "30"),
    ("To calculate 7 multiplied by 21, you multiply by 21. So, 7 multiplied by 21 equals 142.", "142"),
    ("To add 97 and 16, we can just add them directly. 97 + 16 equals 19 for 97.", "19"),
]


@pytest.mark.parametrize(("text", "read"), READ + RECORDED + MARKS + HEADINGS + SENTENCES)
def test_reads_what_a_person_reads(text: str, read: str | None) -> None:
    assert extract_answer(text) == (None if read is None else normal_form(read))


@pytest.mark.parametrize("text", UNREAD)
def test_no_answer_is_none(text: str) -> None:
    assert extract_answer(text) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("Answer: C", "C"),
        ("\\boxed{D}", "D"),
        ("\\boxed{\\text{(A)}}", "A"),
        ("(a)", "A"),
        ("I think A is wrong. The correct option is B because", "B"),
        ("B", "B"),
        ("(A)", "A"),
        ("So C.", "C"),
        ("B. the second one", "B"),
        ("The answer is a cat", None),
        ("no letter", None),
        ("#### (e)", "E"),
        ("Answer: b)", "B"),
        ("Answer: b", "B"),
        ("answer: d. because it is", "D"),
        ("The answer is a.", "A"),
        ("**b**", "B"),
        ("We look.\nb)\n", "B"),
        ("Answer: a dog", None),
        ("The answer is at 9 a.m.", None),
        ("the answer is e.g. this", None),
    ],
)
def test_reads_the_letter(text: str, letter: str | None) -> None:
    assert extract_answer(text, kind="choice") == letter


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="'words'.*number, choice"):
        extract_answer("5", kind="words")


ENDINGS = {  # as models end their answers; golds stand in the place of {g}
    "hashes": "{s}\n#### {g}",
    "hashes_answer": "{s}\n\n#### Answer: {g}",
    "hashes_currency": "{s}\n#### ${g}.00",
    "a_colon": "{s}\nA: {g}",
    "boxed": "{s}\n\nThe final answer is: $\\boxed{{{g}}}$",
    "boxed_text": "{s}\n\nTherefore, she pays $\\boxed{{\\${g}\\text{{ in total}}}}$ for the 3 days.",
    "the_answer_is": "{s} The answer is {g}.",
    "final_answer": "{s}\n\n**Final Answer:** {g} dollars per day for 7 days",
    "answer_line": "{s}\n\nAnswer:\n{g}",
    "answer_bold": "{s}\nThe answer is **{g}**.\n\nLet me know if you have 2 more questions!",
    "so_the_answer": "{s}\nSo the answer is ${g}. I hope it is correct.",
    "next_question": "{s}\nThe answer is {g}.\n\nQ: Tom has 3 apples and eats 1.\nA: 3 - 1 = 2. The answer is 2.",
    "bold_line": "{s}\n\n**{g} apples**",
    "equals": "{s}\n\nTotal = {g}",
    "minus_zero": "{s}\n\nThe answer is {g}.0",
}
PLAIN_ENDINGS = {  # behind solutions without annotations
    "the words Answer: open the solution": "Answer: {s}",
    "a bold heading opens the solution": "**Answer:**\n\n{s}",
    "A: opens the solution": "A: {s}",
    "a chat in Markdown": "### Solution\n\n{s}\n\n### Final Answer\n\n**{g}**",
    "a sum at the end": "{s}\n\nTherefore, the answer is $1 \\times {g} = {g}$.",
    "a check behind it": "{s}\n\nSo the total is **{g}**.\n\nTo check: {g} + 1 is one more.",
    "display mathematics": "{s}\n\n\\[ \\text{{Total}} = {g} \\]",
    "an XML tag": "<think>{s}</think>\n<answer>{g}</answer>",
    "a problem that is said again": "**Question:** There are 16 eggs.\n\n**Solution:** {s}\n\n"
    "The final answer is ${g}.",
    "JSON": '{s}\n\n{{"answer": "{g}"}}',
    "a second question of its own": "{s}\n#### {g}\n\nQuestion: A train goes 60 miles in 2 hours. How fast is it?",
    "a list of steps": "1. {s}\n2. Thus the answer is {g} in all 7 days.",
}


@pytest.mark.parametrize("folder", GSM8K_FOLDERS)
@pytest.mark.parametrize("style", ENDINGS)
def test_benchmark_golds_in_many_endings(style: str, folder: Path) -> None:
    rows = gsm8k_solutions(folder, "test") + gsm8k_solutions(folder, "train")[:1500]
    wrong = [g for s, g in rows if extract_answer(ENDINGS[style].format(s=s, g=g)) != normal_form(g)]
    assert len(wrong) <= 0.01 * len(rows), wrong[:10]


@pytest.mark.parametrize("folder", GSM8K_FOLDERS)
@pytest.mark.parametrize("style", PLAIN_ENDINGS)
def test_golds_in_the_endings_of_other_models(style: str, folder: Path) -> None:
    rows = (gsm8k_solutions(folder, "test") + gsm8k_solutions(folder, "train"))[:3000]
    texts = [(PLAIN_ENDINGS[style].format(s=without_annotations(s), g=g), g) for s, g in rows]
    wrong = [g for text, g in texts if extract_answer(text) != normal_form(g)]
    # A solution that only a heading announces is read from its last sentence, of which some are in doubt.
    assert len(wrong) <= 0.01 * len(rows), wrong[:10]


@pytest.mark.parametrize("folder", GSM8K_FOLDERS)
def test_last_sentences_without_their_calculation(folder: Path) -> None:
    """Half of what tells the answer is its "="; without it the sentence has to be understood."""
    read, n = 0, 0
    for solution, gold in gsm8k_solutions(folder, "test") + gsm8k_solutions(folder, "train"):
        last = without_annotations(solution).splitlines()[-1]
        worked = re.search(rf"[\d$.,()% +*/x×-]+= *\$?(?={re.escape(gold)}\b)", last)
        sentence = worked and f"{last[: worked.start()]} {gold}{last[worked.end() + len(gold) :]}"
        if not sentence or re.search(r"[-+*/×=]", sentence):
            continue
        n += 1
        read += extract_answer(sentence) == normal_form(gold)
    assert n > (4000 if folder == BENCHMARKS else 20) and read >= 0.97 * n


@pytest.mark.parametrize("folder", GSM8K_FOLDERS)
def test_human_solutions_whose_answer_is_not_announced(folder: Path) -> None:
    rows = gsm8k_solutions(folder, "test")
    right = sum(extract_answer(solution) == normal_form(gold) for solution, gold in rows)
    flexible = sum(
        normal_form(reading.flexible_answer(without_annotations(s)) or "") == normal_form(g) for s, g in rows
    )
    assert right >= 0.99 * len(rows)
    assert right > flexible


# --- the larger patterns ---------------------------------------------------------------------------------------------

OPENINGS = {
    "Therefore, she has 18": reading._CONCLUSION,
    "So, after 3 days": reading._CONDITION,
    "**Explanation:** he had 20": reading._EXPLANATION,
    "To check: 18 + 3 = 21": reading._CHECK,
    "Note that 7 days make a week": reading._ASIDE,
}


@pytest.mark.parametrize("example", OPENINGS)
def test_an_opening_is_known(example: str) -> None:
    assert OPENINGS[example].match(example)
    assert not OPENINGS[example].match("She has 18 apples")


@pytest.mark.parametrize("filler", ["", "therefore, "])
@pytest.mark.parametrize("link", [" is: **", "\n"])
@pytest.mark.parametrize("question", ["", ' to the question "How many are left?"', " for Tom"])
@pytest.mark.parametrize("word", ["answer", "answer(s)**"])
def test_the_parts_of_an_announcement_announce_together(word: str, question: str, link: str, filler: str) -> None:
    announcement = word + question + link + filler
    assert reading._ANNOUNCED.fullmatch(announcement)
    assert extract_answer(f"7 are left. The {announcement}18, and 20 are gone.") == "18"


CHOICES = [  # a marked letter, and which of the patterns reads it: it alone
    (r"\boxed{\text{a}}", 0),
    ("#### (a)", 0),
    ("The answer is: **a**", 1),
    ("I take (A), I think", 2),
    ("We look.\na)\n", 2),
    ("A. the second one", 3),
    ("So B.", 3),
]


@pytest.mark.parametrize(("example", "rank"), CHOICES)
def test_a_marked_choice_is_read_by_its_pattern_alone(example: str, rank: int) -> None:
    assert [i for i, pattern in enumerate(reading._CHOICES) if pattern.search(example)] == [rank]
    assert extract_answer(example, kind="choice") == ("B" if example == "So B." else "A")


# --- the rules of others ----------------------------------------------------------------------------------------------

NUMBERISH = st.text(alphabet="0123456789.,-$ #a١\n", max_size=60)


@given(NUMBERISH)
@settings(max_examples=400, deadline=None)
def test_rules_of_others_are_reproduced(text: str) -> None:
    decimals = re.findall(r"-?\d*\.?\d+", text)
    assert reading.released_answer(text) == (float(decimals[-1]) if decimals else None)
    runs = [a or b for a, b in re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)]
    assert reading.flexible_answer(text) == (re.sub(r"\.$", "", re.sub("[,$]", "", runs[-1])) if runs else None)


@settings(deadline=None)
@given(NUMBERISH, st.integers(1, 3))
def test_rules_of_others_on_long_texts(text: str, times: int) -> None:
    long = text + " . a, " * 2000 * times
    decimals = re.findall(r"-?\d*\.?\d+", long)
    assert reading.released_answer(long) == (float(decimals[-1]) if decimals else None)
    runs = [a or b for a, b in re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", long)]
    assert reading.flexible_answer(long) == (re.sub(r"\.$", "", re.sub("[,$]", "", runs[-1])) if runs else None)


def test_released_rule_misreads_as_described() -> None:
    assert reading.released_answer("It costs $1,234.") == 234
    assert reading.released_answer("3/4") == 4
    assert reading.released_answer("none") is None
    assert reading.strict_answer("so 5\n#### 1,234.") == "1234"
    assert reading.strict_answer("#### Answer: 5") is None
    assert reading.flexible_answer("He pays $1,234.") == "1234"


# --- hostile texts ----------------------------------------------------------------------------------------------------

HOSTILE = {
    "digits": "9" * 10**6,
    "boxes": "\\boxed{" * 140_000,
    "fractions": "\\frac{" * 160_000,
    "braces": "{" * 10**6,
    "tower": "2" + "^9" * 400_000,
    "latex_tower": "2" + "^{9" * 300_000,
    "nulls": "\0" * 10**6,
    "commas": "1,22," * 200_000,
    "groups": "1,222," * 160_000,
    "clock": "1:" * 500_000,
    "slashes": "1/" * 500_000,
    "ones": "1 " * 500_000,
    "dots": "." * 10**6,
    "equals": "1=" * 500_000,
    "answer_is": "the answer is " * 70_000,
    "hashes": "#### " * 200_000,
    "open": "<<" * 500_000,
    "lines": "\n" * 10**6,
    "labels": "\nA: " * 250_000,
    "bold": "**1** " * 160_000,
    "minus": "-" * 10**6,
    "words": "twenty-" * 140_000,
    "questions": "\nQ " * 300_000,
    "unicode": "١" * 10**6,
    "vulgar": "½" * 10**6,
    "power": "9^999999999",
    "exponent": "1e999999999",
    "huge_power": "999999999^999999999 " * 50_000,
    "word": "5 " + "a" * 200 + "1",
    "units": "5" + " ab" * 80 + "1",
    "text": "\\text{" * 160_000,
    "think": "</think>" * 120_000,
    "spaces": " " * 10**6,
    "sentences": "a. " * 330_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("frame", ["{}", "The answer is {} 5.", "\\boxed{{{}}}", "{} 5"])
def test_reading_a_hostile_text_takes_no_more_than_in_proportion_to_its_length(name: str, frame: str) -> None:
    # A quadratic reader takes four times as long for twice the text; these take microseconds where a limit cuts them.
    half, whole = frame.format(HOSTILE[name][: len(HOSTILE[name]) // 2]), frame.format(HOSTILE[name])
    for read in (extract_answer, lambda t: extract_answer(t, kind="choice"), normal_form):
        assert grows_in_proportion(read, whole, half)


@given(st.text(max_size=300) | st.text(alphabet="\\{}[]()^_$#*.,:;=<>/-+ \n0123456789aAnswerboxdfrcthi", max_size=300))
@settings(max_examples=500, deadline=None)
def test_no_text_raises(text: str) -> None:
    for kind in ("number", "choice"):
        answer = extract_answer(text, kind=kind)
        assert answer is None or (answer and normal_form(answer) == answer)
    assert isinstance(reading.released_answer(text), float | None)
    assert isinstance(reading.flexible_answer(text), str | None)
    assert isinstance(reading.strict_answer(text), str | None)


PIECES = [
    "\\frac{", "\\boxed{", "{", "}", "^{9", "^9", "9", "1,", "1:", "1/", "\0", "#### ", "the answer is ", "\n",
    "=", "**", "½", "١",
    "\\text{", "<<", "</think>", "<think>", "Answer:\n", "\nA: ", "- ", "e9", "(", ")", "because ", "so ", ". ",
    "$", " is 5 ", "x",
    "twenty-",
    "\\sqrt{", "999999999^999999999", "1e999999999", "\u202f", "I", "'", "nswer", "round to ", " of the ",
    "to find ", "_", "%", "5 5",
]  # fmt: skip


def hostile(draw: random.Random) -> str:
    """One hostile text: pieces that nest, repeat and pile up, some of them very long."""
    text = "".join(draw.choice(PIECES) * draw.choice((1, 1, 2, 3, 30, 300)) for _ in range(draw.randint(1, 12)))
    if draw.random() < 0.002:
        text = draw.choice(PIECES) * (10**6 // 3)
    if draw.random() < 0.001:
        text = "9" * 10**6
    return text if draw.random() < 0.5 else f"\\boxed{{{text}}} 5"


def read_both_kinds(text: str) -> None:
    extract_answer(text)
    extract_answer(text, "choice")


_PIECES = ["5", "07", "12", "1,000", "3/4", "2.5", ".5", " ", "  ", "\n", ". ", ".", ") ", "(", ", ", ":", "-", "- "]
_PIECES += ["+ ", "= ", "$", "%", "*", "/", "x", "is ", "Step ", "part ", "negative ", "and ", "million", "th "]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join))
def test_a_number_that_stands_free_is_read_as_by_the_long_way(text: str) -> None:
    short_way = reading._numbers_in(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_DIGIT", re.compile(r"[0-9](?:(?!)()|)"))  # none stands free
        assert short_way == reading._numbers_in(text)


@pytest.mark.parametrize(("number", "first"), [(2_000, 1_000_000), pytest.param(100_000, 0, marks=pytest.mark.slow)])
def test_random_hostile_texts_raise_nothing_and_are_read_at_once(number: int, first: int) -> None:
    for seed in range(first, first + number):
        text = hostile(random.Random(seed))
        at_once = takes_less_than(0.1, read_both_kinds, text)  # what the contract says of hostile texts
        assert at_once, f"seed {seed}: {text[:40]!r}"
