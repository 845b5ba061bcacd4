"""Figures of the breakdown: drawn from the reference's tables, empty ones included, their numbers said again in words."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from crescent_utils import breakdown, plots_scores

REFERENCE = Path(__file__).resolve().parent.parent / "outputs" / "reference" / "evaluate"


def drawn(figure) -> bytes:
    figure.savefig(target := io.BytesIO(), format="png", dpi=50)
    return target.getvalue()


def test_gain_parts_say_the_table_again():
    parts = pd.read_parquet(REFERENCE / "parts.parquet")
    figure, text = plots_scores.gain_parts(parts)
    said = text.split("; ")
    assert len(said) == len(parts) and drawn(figure)
    for row, words in zip(parts.itertuples(), said, strict=True):
        assert (
            f"{100 * row.gain:+.1f} points = reasoning {100 * row.reasoning:+.1f}, format {100 * row.format:+.1f}"
            in words
        )
    assert any("student" in words for words in said)
    figure, text = plots_scores.gain_parts(parts.iloc[:0])
    assert text.endswith("no data") and drawn(figure)


def test_failures_say_the_table_again():
    counts = breakdown.failure_counts(pd.read_parquet(REFERENCE / "scores.parquet"))
    figure, text = plots_scores.failures(counts)
    said = text.split("; ")
    assert len(said) == len(counts) and drawn(figure)
    for row, words in zip(counts.to_dict("records"), said, strict=True):
        assert words.endswith(f" of {row['n']:,}")
        for name in ("right", *breakdown.FAILURES):
            assert (f"{name} {row[name]:,}" in words) == (row[name] > 0)
    figure, text = plots_scores.failures(counts.iloc[:0])
    assert text.endswith("no data") and drawn(figure)
