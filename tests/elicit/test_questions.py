"""Questions from completions: wrapped problems, worked cases, gates, phrases and hostile texts."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import benchmark_folders, grows_in_proportion, takes_less_than

from crescent_utils.elicit import questions
from crescent_utils.elicit.questions import REASONS, Phrases, Question, Rejected, extract_question, released_clean

OUR_PROBLEMS = Path(__file__).parent / "problems.jsonl"  # ours: what is easily cut off or changed
TABLES = {name: table for name, table in vars(questions).items() if isinstance(table, Phrases)}
SEARCHED = {"TASK", "QUANTITY"}  # tables that are looked for anywhere in a sentence, not at its head alone
EXAMPLES = {  # for each table a list of examples for each of its parts, in their order
    "CHAT": [
        ["Sure, here it goes."],
        ["Here's one for you!", "Of course! Here are two puzzles.", "Here is what I wrote:"],
        ["I'd be glad.", "Happy to do it.", "With pleasure."],
        ["How about trains!"],
        ["I came up with one.", "Okay, I think you want trains."],
        ["I can help."],
        ["Let me think."],
        ["Let's do this.", "Great, let’s begin."],
        ["Consider the following:"],
        ["Try this."],
        ["As requested.", "Based on your request."],
        ["That's a fun puzzle.", "What a lovely idea."],
        ["Below is mine."],
        ["This one, of all my puzzles on trains, boats and planes, is the one that I still like best: for you:"],
        ["Math puzzle of today:"],
    ],
    "LABEL": [["**My new math problem:**", "Q: "], ["Question — "], ["Problem no. 1) "], ["## Problem statement\n"]],
    "TITLE": [["## The Great Puzzle\n"], ["**Trains**:\n"], ["__Trains__\n"], ["Title: Trains\n"]],
    "REFUSAL": [["I'm afraid not."], ["Sorry, no."], ["I can’t."], ["Unfortunately, no."], ["As an AI, no."]],
    "TASK": [
        ["Now work out the sum."],
        ["If x is 5, then find 2x."],
        ["Take 5 and find its square."],
        ["Divide 12 by 4."],
        ["Of 12 eggs how many eggs are white."],
    ],
    "INSTRUCTION": [
        ["Please round to two places.", "Assume that a month has 30 days."],
        ["Please ignore Sundays.", "Do not round."],
        ["Remember there are 12 in a dozen.", "Note: round up.", "Consider Sundays only."],
        ["(12 in a dozen)"],
    ],
    "QUANTITY": [
        ["1,000.5", "3/4", "10:30"],
        ["½"],
        ["seven"],
        ["seventy"],
        ["hundreds", "halves"],
        ["doubled", "twice"],
    ],
    "SOLUTION": [
        ["**The detailed solution**: 5 + 6 = 11", "Step 1. Add.", "(Answer key\n"],
        ["A: 42"],
        ["The final answer is 42."],
        ["assistant", "### User", "Human: thanks"],
        ["[\\boxed{42}]", "#### 42", "---"],
    ],
    "WORKING": [
        ["To solve this, add."],
        ["Let's add.", "Let x be the sum."],
        ["First, we add."],
        ["We know the sum."],
        ["$x$ = 5"],
    ],
    "FURTHER_PROBLEM": [
        ["**Problem #2", "Q2 Tom has 5 apples."],
        ["2. Tom has 5 apples.", "(12) Tom has 5 apples."],
        ["Another one:"],
        ["Bonus question"],
        ["Question: how many are left?"],
    ],
    "CLOSING": [
        ["Let me know!", "Feel free to ask."],
        ["If you need more, ask."],
        ["I really hope it helps.", "Hope this helps!"],
        ["Good luck!", "Have fun!", "Enjoy!", "Happy solving!"],
        ["Please solve it."],
        ["Can you solve it?", "Are you up for the challenge?", "Could you find the answer?"],
        ["Would you like a hint?", "Do you need a hint?", "What do you think?", "Does this help?"],
        ["Is this what you had in mind?", "How's that?"],
        ["Try it!", "Take your time.", "Give it a go!", "Ready?"],
        ["Remember to check.", "Don't forget the units.", "Show your work."],
        ["The above math problem has fractions."],
        ["This requires algebra.", "It combines both."],
        ["Note: this has two steps.", "(Note that the numbers differ.)"],
        ["I'm curious.", "I changed the numbers."],
        ["Looking forward!", "Thank you.", "Thanks!"],
        ["And there you are.", "There you go!"],
    ],
}


def problems(path: Path) -> list[str]:
    if path.suffix == ".jsonl":
        return [json.loads(line)["question"] for line in path.read_text(encoding="utf-8").splitlines()]
    rows = ET.parse(path).getroot().iter("Problem")
    return [f"{row.findtext('Body')} {row.findtext('Question')}".strip() for row in rows]


# How chat models wrap a problem they were asked for.
WRAPPINGS = {
    "bare": "{}",
    "sure": "Sure! Here's a unique math word problem for you:\n\n{}\n\nLet me know if you'd like another one!",
    "label_solution": "**Problem:** {}\n\n**Solution:** First, we find the total. 5 + 6 = 11.\n\nAnswer: 11",
    "one_line": "Of course! Here is a high-school-level word problem: {} I hope this helps!",
    "quoted": 'Here\'s a creative and challenging problem:\n\n"{}"\n\nThis problem requires algebra. Can you solve it?',
    "curly": "Here is one:\n\n“{}”\n\nGood luck solving it!",
    "title": "# The Great Puzzle 🧩\n\n**Math Word Problem**\n\n{} 😊\n\n---\n\nGood luck!",
    "list": "1. {}\n2. Tom has 5 apples and buys 7 more. How many apples does he have now?\n"
    "3. Sue runs 5 miles. How far?",
    "two": "Problem 1: {}\n\nProblem 2: Tom has 5 apples and buys 7 more. How many?",
    "thinking_aloud": "Okay, let me think of a problem.\n\nProblem:\n{}\n\nTo solve this problem, we need x.\n"
    "Let x = 5.",
    "bold": "Certainly! **{}**\n\nThis problem involves fractions.",
    "quote_block": "I'd be happy to help! Here's a math problem that I came up with:\n\n"
    "> {}\n\nWould you like the solution?",
    "q_and_a": "Q: {}\nA: 42",
    "solution_below": "{}\nSolution: 5+6=11",
    "steps_inline": "{} Let's solve it step by step. 5+6=11.",
    "heading": "### Problem\n\n{}\n\n### Solution\n\nStep 1: Add 5 and 6.",
    "answer_hidden": "Here is the modified problem:\n\n{}\n\n(Answer: 11)\n\nFeel free to ask for more!",
    "tokens": "{}<|eot_id|><|start_header_id|>user",
    "thought": "<think>They want one problem. How about trains?</think>\n\nGreat question! Here's a new problem:\n\n{}",
    "next_block": "{}\n\nA farmer has 12 cows and sells 3 of them. How many cows are left?",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_our_problems_come_back_unchanged(wrapping: str) -> None:
    texts = problems(OUR_PROBLEMS)
    assert len(texts) == len(set(texts)) >= 20
    assert [extract_question(WRAPPINGS[wrapping].format(text)) for text in texts] == [Question(text) for text in texts]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("benchmark", ["gsm8k_test.jsonl", "ASDiv.xml"])
@pytest.mark.parametrize("folder", benchmark_folders("gsm8k_test.jsonl", "ASDiv.xml"))
def test_benchmark_problems_come_back_unchanged(folder: Path, benchmark: str, wrapping: str) -> None:
    texts = problems(folder / benchmark)
    changed = [text for text in texts if extract_question(WRAPPINGS[wrapping].format(text)) != Question(text)]
    assert len(changed) <= 0.01 * len(texts), changed[:5]


@pytest.mark.parametrize(
    ("completion", "question"),
    [
        ("What is 47 + 35?", "What is 47 + 35?"),
        ("Question: What is \\frac{3}{4} of $5.50?", "What is \\frac{3}{4} of $5.50?"),
        ("Compute $x^2 - 3x = 10$ for x > 0.", "Compute $x^2 - 3x = 10$ for x > 0."),
        ("Sure, here it is:\n\nA café sells ½ kg for €3.20 – how much are 5 kg? ☕",
         "A café sells ½ kg for €3.20 – how much are 5 kg?"),
        ("A box holds:\n- 5 red balls\n- 6 blue balls\n\nHow many balls are there?",
         "A box holds:\n- 5 red balls\n- 6 blue balls\n\nHow many balls are there?"),
        ("How many does he eat? How many are left?", "How many does he eat? How many are left?"),
        ("Tom has 5 apples. How many? He has 5 apples.", "Tom has 5 apples. How many?"),
        ("What is 22 / 7? (Round to two places.) Good luck!", "What is 22 / 7? (Round to two places.)"),
        ("Which is heavier?\nA) 5 kg\nB) 6 lb\n\nAnswer: A", "Which is heavier?\nA) 5 kg\nB) 6 lb"),
        ("Great Grandma is 90. How old was she in 5 BC?", "Great Grandma is 90. How old was she in 5 BC?"),
        ("Here are 5 apples and 3 pears. How many fruits are here?",
         "Here are 5 apples and 3 pears. How many fruits are here?"),
        ("I have 3 tens and 5 ones. What number am I?", "I have 3 tens and 5 ones. What number am I?"),
        ("**Tom** has **5** apples. How many?", "Tom has 5 apples. How many?"),
        ("What is 2**3**2, and 5 __ 6?", "What is 2**3**2, and 5 __ 6?"),
        ('She said "5 for $2". How much are 10?', 'She said "5 for $2". How much are 10?'),
        ("Problem\r\n\r\nTom has\x00 5 apples. How many?", "Tom has 5 apples. How many?"),
        # One case for each table that nothing above depends on.
        ("Thanks. Tom has 5 apples. How many?", "Tom has 5 apples. How many?"),
        ("Okay, Tom has 5 apples. How many?", "Tom has 5 apples. How many?"),
        ("What came to mind:\n\nTom has 5 apples. How many?", "Tom has 5 apples. How many?"),
        ("## The Great Apple\nTom has 5 apples. How many?", "Tom has 5 apples. How many?"),
        ("Tom has 5 apples. How many? To find it, ask: what is 5 + 0?", "Tom has 5 apples. How many?"),
        ("Tom has 5 apples. How many?\nProblem 2: What is 7 + 8?", "Tom has 5 apples. How many?"),
        ("Tom has 5 apples. How many? Would you like a hint?", "Tom has 5 apples. How many?"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nTom has 5 apples. How many?", "Tom has 5 apples. How many?"),
    ],
)  # fmt: skip
def test_worked_cases(completion: str, question: str) -> None:
    assert extract_question(completion) == Question(question)


@pytest.mark.parametrize(
    ("completion", "gates", "reason"),
    [
        ("", {}, "empty"),
        (" \n\x00 ", {}, "empty"),
        ("I'm sorry, but I can't help with that.", {}, "refusal"),
        ("如果小明有五个苹果，他又买了三个，他一共有多少个苹果？", {}, "not_english"),
        ("María tiene 5 manzanas y le da 2 a Juan. ¿Cuántas manzanas tiene María?", {}, "not_english"),
        ("The sum of two numbers is their total.", {}, "no_question"),
        ("Solution: 5 + 6 = 11.", {}, "no_question"),
        ("Tom has 5 apples and he gives 2 of them to", {}, "unfinished"),
        ("Why?", {}, "too_short"),
        ("How many? " * 200, {"max_words": 300}, "too_long"),
        ("How many apples does he have?", {"min_quantities": 2}, "too_few_quantities"),
        ("Can you create one unique math word problem, and only that?",
         {"bait": "Please create one unique math word problem, and only that problem."}, "copies_bait"),
        ("What is 5 in a bowl of 8 rounded to two digits?", {"pattern": r"What is \d+ [-+*/] \d+\?"}, "off_pattern"),
    ],
)  # fmt: skip
def test_reasons(completion: str, gates: dict[str, object], reason: str) -> None:
    result = extract_question(completion, **gates)  # type: ignore[arg-type]
    assert isinstance(result, Rejected)
    assert result.reason == reason
    assert reason in REASONS


@pytest.mark.parametrize("table", TABLES)
def test_every_part_matches_its_examples_and_no_other_part_does(table: str) -> None:
    phrases = TABLES[table]
    method = "search" if table in SEARCHED else "match"
    with_all_parts = getattr(phrases, method)
    for part, examples in zip(phrases.parts, EXAMPLES[table], strict=True):
        other_parts = [other for other in phrases.parts if other != part]
        without_part = getattr(Phrases(*other_parts, before=phrases.before, after=phrases.after), method)
        assert [bool(with_all_parts(example)) for example in examples] == [True] * len(examples), part
        assert [bool(without_part(example)) for example in examples] == [False] * len(examples), part


def test_gates_let_good_questions_pass() -> None:
    pattern = r"What is \d+ [-+*/] \d+\?"
    assert extract_question("What is 47 + 35?", pattern=pattern) == Question("What is 47 + 35?")
    # A sampler that stops at the question mark does not return it.
    assert extract_question("What is 47 + 35", pattern=pattern) == Question("What is 47 + 35?")
    assert extract_question("Two cats meet three dogs. How many pets?", min_quantities=2) == Question(
        "Two cats meet three dogs. How many pets?"
    )
    bait = "Write one hard math word problem. Problem:"
    assert isinstance(extract_question("Tom has 5 apples and eats 2. How many are left?", bait=bait), Question)


def test_released_cleaner_does_the_described_damage() -> None:
    assert released_clean("3/4 of $5.50?") == "34 of 5. 50?"
    assert released_clean("No question here.") == ""
    assert released_clean("Of course. Tom has 5 apples. How many? He has 5.") == "Tom has 5 apples. How many?"
    assert released_clean("What is the answer to 5 + 5?") == ""
    assert released_clean("Ann (6) pays 50% of £3: how much? Why?") == "Ann 6 pays 50 of 3: how much?"


@settings(deadline=None)
@given(st.text(max_size=200))
def test_released_cleaner_keeps_only_its_signs(text: str) -> None:
    cleaned = released_clean(text)
    assert all(c.isalnum() or c.isspace() or c in ".,:;?!" for c in cleaned)
    assert cleaned.count("?") <= 1
    assert "?" in text or cleaned == ""


PIECES = st.sampled_from(
    ["Sure! ", "Here's a problem:", "Problem: ", "**", '"', "\n", "\n\n", "Tom has 5 apples. ", "How many? ",
     "Solution:", "1. ", "2. ", "Let me know!", "A) 5", "🍎", "> ", "---\n", "(Round.)", "\\frac{1}{2}",
     "<|eot_id|>", "Find x.", "</think>", " ", "$5.50"]
)  # fmt: skip


@given(st.text(max_size=200) | st.lists(PIECES, max_size=14).map("".join))
@settings(max_examples=600, deadline=None)
def test_any_text_gives_a_question_or_a_reason(text: str) -> None:
    result = extract_question(text)
    if isinstance(result, Rejected):
        assert result.reason in REASONS
    else:
        assert result.text == result.text.strip()
        assert len(result.text.split()) >= 3
        # Nothing is invented: every word of the question stands in the completion, in the same order.
        words = iter(re.findall(r"\w+", text.replace("\x00", "")))
        assert all(word in words for word in re.findall(r"\w+", result.text))


@settings(deadline=None)
@given(st.integers(2, 999), st.integers(2, 999), st.sampled_from("+-*/"), st.sampled_from(sorted(WRAPPINGS)))
def test_arithmetic_questions_come_back_unchanged(a: int, b: int, sign: str, wrapping: str) -> None:
    question = f"What is {a} {sign} {b}?"
    pattern = r"What is \d+ [-+*/] \d+\?"
    assert extract_question(WRAPPINGS[wrapping].format(question), pattern=pattern) == Question(question)


HOSTILE = [
    "\n", " ", "?", "a? ", "How many? ", "Sure! ", "Here is a ", "Problem ", "Problem: ", "math ", "**a", '"', "🍎",
    "> ", "1. ", "\n1. ", "...", "Mr. ", "#", "-", "(", "</think>", "<|", "```",
    "a\n", "Let's ", "a problem ", "\0", "١", "A) 5\n", "_", "the ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("frame", ["{}", "How many? {}", "Sure! {} What is 5 + 6?"])
def test_a_megabyte_takes_linear_time(piece: str, frame: str) -> None:
    text = frame.format(piece * (1_000_000 // len(piece)))
    assert grows_in_proportion(extract_question, text)
    assert takes_less_than(0.5, extract_question, text)
