"""Figures of the breakdown, drawn from the reference's tables and from empty ones; their text says the numbers."""

from __future__ import annotations

import io

import pandas as pd
from shared import REFERENCE

from crescent_utils.evaluate import breakdown
from crescent_utils.figures import evaluate

EVALUATED = REFERENCE / "evaluate"


def drawn(figure) -> bytes:
    figure.savefig(target := io.BytesIO(), format="png", dpi=50)
    return target.getvalue()


def test_gain_parts_say_the_table_again():
    parts = pd.read_parquet(EVALUATED / "parts.parquet")
    figure, text = evaluate.gain_parts_bars(parts)
    said = text.split("; ")
    assert len(said) == len(parts) and drawn(figure)
    for row, words in zip(parts.itertuples(), said, strict=True):
        assert (
            f"{100 * row.gain:+.1f} points = right value {100 * row.reasoning:+.1f}, "
            f"written as asked {100 * row.format:+.1f}" in words
        )
    assert any("student" in words for words in said)
    figure, text = evaluate.gain_parts_bars(parts.iloc[:0])
    assert text.endswith("no data") and drawn(figure)


def test_failures_say_the_table_again():
    counts = breakdown.failure_counts(pd.read_parquet(EVALUATED / "scores.parquet"))
    figure, text = evaluate.failure_bars(counts)
    said = text.split("; ")
    assert len(said) == len(counts) and drawn(figure)
    for row, words in zip(counts.to_dict("records"), said, strict=True):
        assert words.endswith(f" of {row['n']:,}")
        for name in ("right", *breakdown.FAILURES):
            assert (f"{name} {row[name]:,}" in words) == (row[name] > 0)
    figure, text = evaluate.failure_bars(counts.iloc[:0])
    assert text.endswith("no data") and drawn(figure)
