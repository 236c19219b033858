"""The catalogue of laws, and the page that is made of it."""

from pathlib import Path

import pytest

from vq_reference.testing.laws.registry import as_markdown, laws

PAGE = Path(__file__).parents[2] / "docs" / "laws.md"


def test_the_page_of_laws_is_made_of_the_laws():
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), "run: vq-check laws --markdown > docs/laws.md"


def test_every_law_states_itself_in_one_sentence_with_a_source():
    for law in laws().values():
        assert law.sentence.endswith("."), law.id
        assert law.source, law.id
        assert len(law.sentence) <= 120, law.id


def test_no_two_laws_state_the_same():
    sentences = [law.sentence for law in laws().values()]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("law", laws().values(), ids=lambda law: law.id)
def test_the_family_of_a_law_is_the_name_of_its_file(law):
    assert law.check.__module__ == f"vq_reference.properties.test_{law.id.partition('.')[0]}"
