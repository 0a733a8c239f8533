"""What a recipe may say of formats, and the words for what is wrong with the files of each."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayprob.data.building.recipe import Recipe
from rayprob.data.sources.source import SourceData, read_source
from rayprob.errors import RayprobError, SourceError, SpecError
from tests.data.small_source import draw_jpeg
from tests.data.sources.stated_labels import Labels, labels_of, present_in, read

JPEG = draw_jpeg(0, 24, 24)
COCO = {"images": "a", "annotations": "b"}


def table(folder: Path, text: str, **keys: Any) -> dict[str, Any]:
    path = folder / keys.pop("name", "labels.csv")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return {"format": "table", "images": str(folder), "annotations": str(path), **keys}


def message(**source: Any) -> str:
    with pytest.raises(RayprobError) as caught:
        labels_of(read(**source))
    return str(caught.value)


def test_a_split_without_a_format_is_written_as_0_1_wrote_it() -> None:
    recipe = Recipe.parse({"name": "x", "splits": {"train": COCO}})
    assert set(recipe.model_dump(mode="json")["splits"]["train"]) == {"images", "annotations", "expect"}
    assert "labels" not in recipe.model_dump(mode="json")
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe


def test_the_keys_of_a_format_are_read_and_written(tmp_path: Path) -> None:
    source = {"format": "voc", "images": "VOC2007", "set": "trainval"}
    recipe = Recipe.parse({"name": "x", "splits": {"train": source}})
    assert recipe.splits["train"].model_dump(mode="json") == {**source, "expect": None}
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert Recipe.read(tmp_path / "again.yaml") == recipe
    changed = Recipe.read(tmp_path / "again.yaml", ["splits.train.set=train"])
    assert changed.fingerprint != recipe.fingerprint


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({**COCO, "format": "vocs"}, "splits.train.format: unknown format 'vocs'; nearest: voc; allowed: coco, table, voc"),
        ({**COCO, "format": 3}, "splits.train.format: unknown format '3'; allowed: coco"),
        (
            {"format": "voc", "images": "a", "sets": "b"},
            "splits.train: unknown key of format voc: 'sets'; nearest: set; allowed",
        ),
        ({"format": "voc"}, "splits.train.images: required, but missing"),
        ({**COCO, "rest": "unknwon"}, "splits.train.rest: input should be 'absent' or 'unknown'"),
        ({**COCO, "format": "table"}, "splits.train: give one of one_hot, lists and label, .* found none of them"),
        ({**COCO, "format": "table", "lists": 2, "label": 3}, "splits.train: give one of .* found lists and label"),
        ({**COCO, "format": "table", "lists": 2, "value": 3}, "splits.train: value requires label"),
        ("coco", "splits.train: expected a mapping"),
    ],
)
def test_a_fault_of_a_split_is_named(source: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Recipe.parse({"name": "x", "splits": {"train": source}})


def coco(folder: Path, split: str, names: dict[int, str], labels: dict[int, list[int]]) -> dict[str, Any]:
    """Write COCO annotations with an image for each entry of `labels`."""
    for image in labels:
        (folder / f"{image}.jpg").write_bytes(JPEG)
    content = {
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in labels],
        "annotations": [{"image_id": image, "category_id": one} for image, some in labels.items() for one in some],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    (folder / f"{split}.json").write_text(json.dumps(content))
    return {"images": str(folder), "annotations": str(folder / f"{split}.json")}


def joined(folder: Path, labels: Any, *, same_ids: bool = True) -> SourceData:
    train = coco(folder, "train", {1: "cat", 2: "dog"}, {1: [1, 2], 2: [2]})
    val = coco(folder, "val", {2: "dog", 3: "elk"} if same_ids else {1: "dog", 2: "elk"}, {11: [2 if same_ids else 1]})
    recipe = {"name": "x", "splits": {"train": train, "val": val}, "labels": labels, "target": str(folder / "built")}
    return read_source(Recipe.parse({**recipe, "holdout": None}))


def test_splits_with_other_labels_are_joined_where_a_union_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"differ: column 0 is 'cat' \(id 1\) .*, or set labels: union"):
        joined(tmp_path, None)
    data = joined(tmp_path, "union")
    assert (data.label_space.names, data.label_space.category_ids) == (("cat", "dog", "elk"), (1, 2, 3))
    assert [(image.labels, image.unknown_labels) for image in data.images["train"]] == [((0, 1), (2,)), ((1,), (2,))]
    assert [(image.labels, image.unknown_labels) for image in data.images["val"]] == [((1,), (0,))]


def test_ids_that_contradict_one_another_are_numbered_anew(tmp_path: Path) -> None:
    space = joined(tmp_path, "union", same_ids=False).label_space
    assert (space.names, space.category_ids) == (("cat", "dog", "elk"), (0, 1, 2))


def test_labels_that_occur_must_be_among_those_that_another_split_lists(tmp_path: Path) -> None:
    train = coco(tmp_path, "train", {1: "cat", 2: "dog"}, {1: [1, 2]})
    val = table(tmp_path, "image,tag\n2,dog\n3,elk\n", label="tag")
    for name in (2, 3):
        (tmp_path / f"{name}.jpg").write_bytes(JPEG)
    recipe = {"name": "x", "splits": {"train": train, "val": val}, "holdout": None, "target": str(tmp_path / "built")}
    with pytest.raises(SourceError, match=r"labels.csv has the label 'elk', which .*train.json does not list; set"):
        read_source(Recipe.parse(recipe))
    data = read_source(Recipe.parse({**recipe, "labels": "union"}))
    assert data.label_space.names == ("cat", "dog", "elk")
    assert [(image.labels, image.unknown_labels) for image in data.images["val"]] == [((1,), ()), ((2,), ())]


def test_an_image_is_found_by_its_url_where_its_file_name_is_another(tmp_path: Path) -> None:
    source = coco(tmp_path, "train", {1: "cat"}, {7: [1]})
    (tmp_path / "val2017").mkdir()
    (tmp_path / "7.jpg").rename(tmp_path / "val2017/000000000007.jpg")
    content = json.loads((tmp_path / "train.json").read_text())
    content["images"][0] |= {"file_name": "COCO_val2014_7.jpg", "coco_url": "http://a.org/val2017/000000000007.jpg"}
    (tmp_path / "train.json").write_text(json.dumps(content))
    for folder in (tmp_path, tmp_path / "val2017"):
        split = {**source, "images": str(folder)}
        recipe = {"name": "x", "splits": {"train": split}, "holdout": None, "target": str(tmp_path / "built")}
        (image,) = read_source(Recipe.parse(recipe)).images["train"]
        assert (folder / image.file_name).is_file()


def test_a_list_of_labels_chooses_and_orders_them(tmp_path: Path) -> None:
    data = joined(tmp_path, ["elk", "dog"])
    assert [(image.labels, image.unknown_labels) for image in data.images["train"]] == [((1,), (0,)), ((1,), (0,))]
    assert data.dropped["train"] == {"label 'cat', which the recipe's list leaves out": 1}
    with pytest.raises(SourceError, match=r"labels: unknown label 'dogs'; nearest: dog; allowed: cat, dog, elk"):
        joined(tmp_path, ["dogs"])


def test_labels_that_only_occur_need_not_occur_in_every_split(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(JPEG)
    splits = {
        "train": table(tmp_path, "image,tags\na,cat;dog\nb,elk\n", lists="tags", separator=";"),
        "val": table(tmp_path, "image,tags\nc,dog\n", lists="tags", name="val.csv"),
    }
    data = read_source(Recipe.parse({"name": "x", "splits": splits, "holdout": None, "target": str(tmp_path / "built")}))
    assert data.label_space.names == ("cat", "dog", "elk")
    assert [(image.labels, image.unknown_labels) for image in data.images["val"]] == [((1,), ())]
    assert [image.file_name for image in data.images["train"]] == ["a.jpg", "b.jpg"]


def test_rows_of_an_image_need_not_be_adjacent_and_a_contradiction_is_unknown(tmp_path: Path) -> None:
    rows = ["image,label,value", "a,cat,1", "b,dog,0", "a,cat,0", "b,cat,1", "a,dog,1", "a,dog,"]
    stated = read(**table(tmp_path, "\n".join(rows), label="label", value="value"))
    assert labels_of(stated) == {"a": Labels({"dog"}, set(), {"cat"}), "b": Labels({"cat"}, {"dog"}, set())}
    assert stated.dropped == {"a statement that another row contradicts, which makes the label unknown": 1}


def test_a_table_in_parts_is_the_table_of_all_its_rows(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "_SUCCESS").write_text("")
    for number, rows in enumerate((["a,cat", "b,dog"], ["a,elk"], ["c,cat"])):
        (parts / f"part-{number:05d}.csv").write_text("\n".join(["image,tag", *rows, ""]))
    expected = {"a": {"cat", "elk"}, "b": {"dog"}, "c": {"cat"}}
    for annotations in ("", "/part-*.csv", "/part-{00000..00002}.csv"):
        keys = {"format": "table", "images": ".", "annotations": f"{parts}{annotations}", "label": "tag"}
        assert present_in(**keys) == expected
        assert present_in(**{**keys, "annotations": [keys["annotations"]]}) == expected
    (parts / "part-00003.csv").write_text("image,label\nd,cat\n")
    with pytest.raises(SourceError, match=r"part-00003\.csv: unknown column 'tag'; allowed: image, label"):
        present_in(**{**keys, "annotations": str(parts)})
    with pytest.raises(SourceError, match=r"x-\*\.csv matches no file that ends with \.parquet or \.csv"):
        present_in(**{**keys, "annotations": f"{parts}/x-*.csv"})


def test_only_some_rows_are_taken(tmp_path: Path) -> None:
    text = "image,fold,tag\na,0,cat\nb,1,dog\nc,2,elk\nd,1.0,cat\n"
    assert present_in(**table(tmp_path, text, label="tag", where={"fold": 1})) == {"b": {"dog"}, "d": {"cat"}}
    assert set(present_in(**table(tmp_path, text, label="tag", where={"fold": [0, "2"], "tag": "elk"}))) == {"c"}


def test_scores_become_labels_by_two_cuts(tmp_path: Path) -> None:
    text = "image,cat,dog,elk\na,0.9,0.4,0.05\n"
    stated = read(**table(tmp_path, text, one_hot="2..", present_from=0.7, absent_to=0.1))
    assert labels_of(stated) == {"a": Labels({"cat"}, {"elk"}, {"dog"})}


def test_a_name_of_several_codes_gets_the_code(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text('/m/1,"Bat, the animal"\n/m/2,Bat\n/m/3,Bat\n')
    text = "image,code\na,/m/1\nb,/m/3\n"
    stated = read(**table(tmp_path, text, label="code", names=str(tmp_path / "names.csv")))
    assert stated.label_space.names == ("Bat, the animal", "Bat (/m/2)", "Bat (/m/3)")


@pytest.mark.parametrize(
    ("text", "keys", "words"),
    [
        (
            "image,cat\na.jpg,1\n",
            {"one_hot": "cta"},
            "unknown column 'cta'; nearest: cat; allowed: image, cat, or a number from 1",
        ),
        ("image,cat\na.jpg,1\n", {"one_hot": 3}, "unknown column '3'; allowed: image, cat, or a number from 1 to 2"),
        ("image,cat,dog\na.jpg,1,0\n", {"one_hot": "dog..cat"}, "the range 'dog..cat' ends before it starts"),
        ("image,cat\na.jpg,maybe\n", {"one_hot": 2}, "row 2, 'cat' is 'maybe', which `values` does not define"),
        ("image,cat\na.jpg,1,1\n", {"one_hot": 2}, "cannot be read as a table: .*Expected 2 columns, got 3"),
        ("image,cat,cat\na.jpg,1,1\n", {"one_hot": "cat"}, "has 2 columns named 'cat'; give the number of one"),
        ("image,cat,cat\na.jpg,1,1\n", {"one_hot": "2.."}, "1 x duplicate label name: 'cat'"),
        ("image,\na.jpg,1\n", {"one_hot": 2}, "has no header, so its labels have no names; give `names`"),
        ("", {"one_hot": 2}, "is empty; download it again"),
        ("image,tags\na.jpg,\n", {"lists": 2}, "no label occurs; a dataset needs at least one"),
        (
            "image,code\na.jpg,7\n",
            {"label": 2, "names": ["cat"]},
            "row 2: unknown label code '7'; allowed: 0; add it to `names`",
        ),
        ("image,cat\na.jpg,1\n", {"one_hot": 2, "delimiter": "ab"}, "delimiter is 'ab'; it must be one ASCII character"),
    ],
)
def test_a_fault_of_a_table_is_named(tmp_path: Path, text: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        labels_of(read(**table(tmp_path, text, **keys)))


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    source = table(tmp_path, "image,cat\na,1\na.jpg,1\n", one_hot=2)
    with pytest.raises(SourceError, match=r"1 x image listed twice: 'a'; list each image once"):
        read_source(Recipe.parse({"name": "x", "splits": {"train": source}, "holdout": None, "target": str(tmp_path / "b")}))


def voc(folder: Path, xml: str) -> dict[str, Any]:
    (folder / "a.xml").write_text(xml)
    return {"format": "voc", "images": str(folder)}


def test_voc_knows_present_and_difficult_objects(tmp_path: Path) -> None:
    sure, hard = ("<object><name>cat</name></object>", "<object><name>{}</name><difficult>1</difficult></object>")
    xml = f"<annotation>{sure}{hard.format('cat')}{hard.format('dog')}</annotation>"
    assert labels_of(read(**voc(tmp_path, xml))) == {"a": Labels({"cat"}, set(), {"dog"})}


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares the document type a, which annotations do not need"),
        ("<annotation><object/></annotation>", "has an object without a name; name it or drop it"),
        ("<annotation>", "is not readable XML: no element found"),
        (
            "<annotation><object><name>a</name><difficult>x</difficult></object></annotation>",
            "difficult is 'x' in an object 'a'",
        ),
        ("<annotation/>", "no label occurs"),
    ],
)
def test_a_fault_of_voc_is_named(tmp_path: Path, xml: str, words: str) -> None:
    assert words in message(**voc(tmp_path, xml))


def test_a_set_that_voc_does_not_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for name in ("train", "val", "cat_train"):
        (tmp_path / f"ImageSets/Main/{name}.txt").write_text("a\n")
    assert "unknown set 'trian'; nearest: train; allowed: train, val" in message(
        format="voc", images=str(tmp_path), set="trian"
    )


def test_a_number_that_no_name_of_yolo_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(JPEG)
    (tmp_path / "labels/a.txt").write_text("0 .5 .5 1 1\n5 .5 .5 1 1\n")
    source = {"format": "yolo", "images": str(tmp_path / "images"), "names": ["cat"]}
    assert "a.txt, line 2: '5' is not a label number; allowed: 0 to 0" in message(**source)


def test_the_names_of_yolo_are_found_above_its_images(tmp_path: Path) -> None:
    (tmp_path / "train/images").mkdir(parents=True)
    source = {"format": "yolo", "images": str(tmp_path / "train/images")}
    assert "no data.yaml or dataset.yaml or classes.txt or obj.names is in " in message(**source)
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}")
    assert read(**source).label_space.names == ("cat", "dog")


def test_files_of_one_name_are_one_image_only_where_their_bytes_are_the_same(tmp_path: Path) -> None:
    for label, name, content in (
        ("cat", "1.jpg", b"x"),
        ("dog", "1.jpg", b"x"),
        ("cat", "2.jpg", b"y"),
        ("dog", "2.jpg", b"z"),
    ):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / name).write_bytes(content)
    (tmp_path / "outside.jpg").write_bytes(b"x")
    stated = read(format="folders", images=str(tmp_path))
    assert {key: labels.present for key, labels in labels_of(stated).items()} == {
        "1": {"cat", "dog"},
        "cat/2.jpg": {"cat"},
        "dog/2.jpg": {"dog"},
    }
    assert sum(stated.dropped.values()) == 2


def test_a_path_that_leads_to_no_file_is_named(tmp_path: Path) -> None:
    for given in ("none", "*.tar", "{00..02}.tar"):
        words = message(format="webdataset", images=str(tmp_path / given))
        assert "matches no file that ends with .tar; check the path" in words


def test_the_root_category_of_roboflow_is_left_out_and_counted(tmp_path: Path) -> None:
    source = coco(tmp_path, "train", {0: "animals", 1: "cat", 2: "dog"}, {1: [1]})
    content = json.loads((tmp_path / "train.json").read_text())
    for category in content["categories"]:
        category["supercategory"] = "animals" if category["id"] else "none"
    (tmp_path / "train.json").write_text(json.dumps(content))
    stated = read(**source)
    assert stated.label_space.names == ("cat", "dog")
    assert stated.dropped == {"category 'animals', the parent of all others, without annotations": 1}
    assert present_in(**source) == {"1": {"cat"}}


def parquet(folder: Path, **columns: list[Any]) -> dict[str, Any]:
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return {"format": "huggingface", "images": str(folder / "train.parquet")}


def test_images_of_parquet_may_be_plain_bytes_and_labels_lie_in_a_struct(tmp_path: Path) -> None:
    objects = [{"category": ["cat", "dog"]}, {"category": []}, {"category": None}]
    source = parquet(tmp_path, image=[JPEG, JPEG, JPEG], objects=objects)
    assert labels_of(read(**source, label="objects.category")) == {
        "train/0": Labels({"cat", "dog"}, set(), set()),
        "train/1": Labels(set(), set(), set()),
        "train/2": Labels(set(), set(), {"cat", "dog"}),
    }
    assert "unknown column 'labels'; allowed: image, objects; set `label` to one of them" in message(**source)


def test_paths_that_repeat_do_not_name_images(tmp_path: Path) -> None:
    images = [{"bytes": JPEG, "path": "image.jpg"}, {"bytes": JPEG, "path": "image.jpg"}]
    assert present_in(**parquet(tmp_path, image=images, label=["cat", "dog"])) == {"train/0": {"cat"}, "train/1": {"dog"}}


def test_an_image_without_bytes_is_named(tmp_path: Path) -> None:
    source = parquet(tmp_path, image=[{"bytes": None, "path": "a.jpg"}], label=["cat"])
    assert "the image a has no bytes in the file (found None); write the dataset with embedded images" in message(**source)
