"""Label spaces joined by name."""

from rayprob.data.joined.labels import JoinedLabels
from rayprob.labels import COCO_80, LabelSpace


def test_equal_spaces_join_to_the_first() -> None:
    joined = JoinedLabels.of([COCO_80, COCO_80])
    assert joined.label_space == COCO_80
    assert joined.label_space.fingerprint == COCO_80.fingerprint
    assert [columns.tolist() for columns in joined.columns] == [list(range(80))] * 2


def test_new_labels_come_after_those_of_the_first_with_the_next_ids() -> None:
    first, second = LabelSpace(("cat", "dog"), (3, 7)), LabelSpace(("bird", "dog", "ant"), (1, 2, 3))
    joined = JoinedLabels.of([first, second, LabelSpace(("ant", "cat"), (1, 2))])
    assert joined.label_space == LabelSpace(("cat", "dog", "bird", "ant"), (3, 7, 8, 9))
    assert [columns.tolist() for columns in joined.columns] == [[0, 1], [2, 1, 3], [3, 0]]


def test_names_of_voc_and_coco_are_the_same_labels_and_accents_the_same_letters() -> None:
    voc = LabelSpace(("aeroplane", "cafe\u0301", "person"), (1, 2, 3))
    joined = JoinedLabels.of([LabelSpace(("person", "airplane", "caf\u00e9"), (1, 5, 6)), voc])
    assert joined.label_space.names == ("person", "airplane", "caf\u00e9")
    assert joined.columns[1].tolist() == [1, 2, 0]
    assert joined.renamed(1, voc) == {"aeroplane": "airplane"}
    assert joined.renamed(0, joined.label_space) == {}
