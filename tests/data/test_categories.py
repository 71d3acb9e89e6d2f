"""Whether two lists of categories are the same."""

from __future__ import annotations

import pytest

from data.annotations import Category
from data.categories import check_same_classes, same_class
from data.lvis import SYNSETS
from sharpcontour.errors import InputError


def test_classes_of_other_names_are_refused() -> None:
    cat, dog = Category(id=1, name="cat"), Category(id=2, name="dog")
    files = "train.json", "val.json"
    check_same_classes([cat, dog], [cat, dog], files)
    with pytest.raises(InputError, match=r"category 1 is cat in train\.json and dog in val\.json"):
        check_same_classes([cat, dog], [Category(id=1, name="dog"), Category(id=2, name="cat")], files)
    with pytest.raises(InputError, match=r"train\.json has 2 categories, val\.json 1, and their ids differ"):
        check_same_classes([cat, dog], [cat], files)


def test_classes_of_coco_may_have_names_of_lvis() -> None:
    person, baby = Category(id=1, name="person"), Category(id=1, name="baby", synset=SYNSETS[1])
    assert same_class(person, baby) and same_class(baby, person) and same_class(baby, baby | Category(name="child"))
    assert not same_class(baby, Category(id=1, name="cat"))  # of a data set of one's own
    assert not same_class(Category(id=900, name="cat"), Category(id=900, name="dog"))
