"""Write the README's table of claims again: out of `outputs/study/claims.json`, or while there is none the reference's.

`python tests/make_readme.py`; `tests/cli/test_study.py` checks that the README has it.
"""

from __future__ import annotations

from pathlib import Path

from crescent_utils.cli import study

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- claims -->\n", "\n<!-- end of claims -->"


def write_claims(readme: Path, outputs: Path) -> str:
    """Put the table between the README's two comments; return where its claims are from."""
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    source, rows = study.recorded_claims(outputs)
    readme.write_text(f"{before}{BEGIN}{study.claims_markdown(rows)}{END}{after}", encoding="utf-8")
    return source


if __name__ == "__main__":
    print(f"README.md: claims of {write_claims(ROOT / 'README.md', ROOT / 'outputs')}")
