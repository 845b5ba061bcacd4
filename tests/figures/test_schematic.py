"""The schematic: well-formed SVG with one step lit, small, and readable on light and dark pages."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from IPython.core.formatters import DisplayFormatter
from shared import contrast

from crescent_utils import runs
from crescent_utils.figures import schematic
from crescent_utils.figures.schematic import INK, LIT

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("step", ["", *runs.STAGES])
def test_the_schematic_is_small_xml_with_one_step_lit(step):
    text = schematic(step)
    assert len(text.encode()) <= 4096
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    boxes = [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}rect") is not None]
    names = [group.find(f"{SVG}text").text for group in boxes]
    assert names == [f"{number:02} {name}" for number, name in enumerate(runs.STAGES, start=1)]
    lit = [name for group, name in zip(boxes, names, strict=True) if group.find(f"{SVG}rect").get("fill") == LIT]
    assert lit == [name for name in names if step and name.endswith(step)]


def test_a_notebook_that_is_not_trusted_shows_the_steps_in_words():
    data, _ = DisplayFormatter().format(schematic("vote"))
    assert data["image/svg+xml"].startswith("<svg")
    assert data["text/plain"] == "01 elicit > 02 dedup > [03 vote] > 04 finetune > 05 distil > 06 evaluate"


def test_the_schematic_loads_nothing_and_styles_nothing_around_it():
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(schematic("vote")).iter()}
    assert tags == {"svg", "title", "g", "rect", "text", "path"}
    assert schematic("vote").count("http") == 1, "the name space alone"


def test_an_unknown_step_is_named_with_the_allowed_ones():
    with pytest.raises(ValueError, match="step: 'votes' .*elicit, dedup, vote, finetune, distil, evaluate"):
        schematic("votes")


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
def test_its_ink_can_be_read_on_a_light_and_a_dark_page(page):
    assert contrast(INK, page) >= 4
    assert contrast("#ffffff", LIT) >= 4.5
