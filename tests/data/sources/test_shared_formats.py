"""Each folder of ../shared/formats gives the labels that its NOTE.md expects."""

import shutil
from pathlib import Path

import pytest

from rayprob.errors import SourceError
from tests.data.sources.stated_labels import Labels, labels_of, present_in, read

pytestmark = pytest.mark.shared


@pytest.fixture
def formats(shared: Path) -> Path:
    return shared / "formats"


@pytest.mark.parametrize("name", ["image_csv_multi_label_ann", "image_csv_multi_label_ann_wo_ext"])
def test_csv_with_a_column_per_label(formats: Path, name: str) -> None:
    stated = read(format="table", images=".", annotations=str(formats / f"csv_onehot/{name}.csv"), one_hot="dog..")
    assert stated.label_space.names == ("dog", "cat", "person")
    labels = labels_of(stated)
    assert labels["1"] == Labels({"dog"}, {"cat", "person"}, set())
    assert [labels[key].present for key in "456"] == [{"dog", "cat"}, {"dog", "person"}, {"cat", "person"}]


@pytest.mark.parametrize("name", ["image_csv_det_ann", "image_csv_det_ann2"])
def test_csv_with_a_row_per_box(formats: Path, name: str) -> None:
    found = present_in(format="table", images=".", annotations=str(formats / f"csv_onehot/{name}.csv"), label="label_name")
    assert found == {"1": {"dog", "cat"}, "2": {"cat"}, "3": {"dog", "cat"}}


def test_text_with_an_image_and_a_label_per_line(formats: Path) -> None:
    path = str(formats / "csv_onehot/image_txt_ann.txt")
    found = present_in(format="table", images=".", annotations=path, header=False, label=2)
    assert found == {"1": {"dog"}, "2": {"cat"}, "3": {"dog"}, "4": {"cat"}, "5": {"cat"}}


def test_imagenet_lists_have_numbers_and_names_of_their_own(formats: Path) -> None:
    source = {"annotations": str(formats / "imagenet_txt/train.txt"), "names": str(formats / "imagenet_txt/synsets.txt")}
    stated = read(format="table", images=".", header=False, label=2, **source)
    assert len(stated.label_space) == 10
    found = {key: labels.present for key, labels in labels_of(stated).items()}
    assert found == {"1": {"label_0"}, "2": {"label_5"}, "3": {"label_3"}, "4": {"label_5"}}


def open_images(formats: Path, file: str) -> dict[str, str]:
    folder = formats / "openimages"
    return {"annotations": str(folder / file), "names": str(folder / "oidv6-class-descriptions.csv")}


def test_open_images_states_present_and_absent_labels(formats: Path) -> None:
    keys = {"format": "table", "images": ".", "label": "LabelName", "value": "Confidence"}
    train = read(**keys, **open_images(formats, "oidv6-train-annotations-human-imagelabels.csv"))
    assert (train.rest, len(train.label_space)) == ("unknown", 4)
    assert labels_of(train) == {
        "a": Labels({"Generic label #0"}, set(), set()),
        "b": Labels(set(), {"Generic label #0"}, set()),
    }
    test = read(**keys, **open_images(formats, "test-annotations-human-imagelabels.csv"))
    assert labels_of(test) == {"c": Labels({"Generic label #1", "Generic label #3"}, set(), set())}


def test_open_images_of_others_read_by_position_and_by_source(formats: Path) -> None:
    path = str(formats / "openimages/tfds/train-human-labels.csv")
    keys = {"format": "table", "images": ".", "annotations": path, "label": "LabelName"}
    with pytest.raises(SourceError, match=r"unknown column 'Confidence'; nearest: Condidence"):
        read(**keys, value="Confidence")
    found = labels_of(read(**keys, value=4, where={"Source": "verification"}))
    assert found["00013dfa1dcb93d1"] == Labels({"/m/016x13", "/m/016x4"}, {"/m/016x17"}, set())


def test_chexpert_knows_blank_and_uncertain_as_unknown(formats: Path) -> None:
    stated = read(
        format="table",
        images=".",
        annotations=str(formats / "chexpert/train.csv"),
        one_hot="No Finding..Support Devices",
        values={"-1": "unknown"},
    )
    assert len(stated.label_space) == 14
    first = labels_of(stated)["CheXpert-v1.0-small/train/patient80001/study1/view1_frontal"]
    assert first.present == {"Pneumothorax"}
    assert first.absent == {"No Finding", "Pneumonia"}
    assert first.unknown == {*stated.label_space.names} - first.present - first.absent


def test_chexpert_without_a_meaning_for_uncertain_is_refused(formats: Path) -> None:
    path = str(formats / "chexpert/train.csv")
    stated = read(format="table", images=".", annotations=path, one_hot="6..19")
    with pytest.raises(SourceError, match=r"train.csv, row 2, 'Cardiomegaly' is '-1.0', which `values` does not define"):
        labels_of(stated)


def test_chestxray14_lists_labels_and_a_word_for_none(formats: Path) -> None:
    found = labels_of(
        read(
            format="table",
            images=".",
            annotations=str(formats / "chestxray14/Data_Entry_2017.csv"),
            image="Image Index",
            lists="Finding Labels",
            separator="|",
            no_label=["No Finding"],
        )
    )
    assert found["00080001_000"].present == set()
    assert found["00080002_000"].present == {"Infiltration", "Mass"}


def test_voc_labels_are_those_of_objects_and_not_of_their_parts(formats: Path) -> None:
    stated = read(format="voc", images=str(formats / "voc"), set="train")
    assert labels_of(stated) == {"2007_000001": Labels({"cat", "person"}, set(), set())}


def test_voc_beside_images(formats: Path, tmp_path: Path) -> None:
    for path in (formats / "voc").glob("roboflow_*.xml"):
        shutil.copy(path, tmp_path / path.name.split("_", 2)[2])
    assert present_in(format="voc", images=str(tmp_path)) == {
        "train_001": {"label_0"},
        "train_002": {"label_1"},
        "val_001": {"label_0", "label_1"},
    }


def test_voc_of_every_annotation(formats: Path) -> None:
    assert present_in(format="voc", images=str(formats / "voc"))["a"] == {"background"}


def yolo(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"\xff\xd8\xff")


def test_yolo_with_data_yaml(formats: Path, tmp_path: Path) -> None:
    shutil.copytree(formats / "yolo", tmp_path / "data")
    yolo(tmp_path / "data/train/images", "train_001.jpg", "train_002.jpg", "train_003.jpg")
    yolo(tmp_path / "data/val/images", "val_001.jpg")
    names = str(tmp_path / "data/data.yaml")
    assert present_in(format="yolo", images=str(tmp_path / "data/train/images"), names=names) == {
        "train_001": {"label_0"},
        "train_002": {"label_1"},
        "train_003": set(),
    }
    found = present_in(format="yolo", images=str(tmp_path / "data/val/images"), names=names)
    assert found == {"val_001": {"label_0", "label_1"}}


def test_yolo_of_label_studio(formats: Path, tmp_path: Path) -> None:
    shutil.copytree(formats / "yolo/labelstudio", tmp_path / "ls")
    yolo(tmp_path / "ls/images", "img_1.jpg", "img_5.jpg", "img_7.jpg")
    found = present_in(format="yolo", images=str(tmp_path / "ls/images"), names=str(tmp_path / "ls/classes.txt"))
    assert found == {"img_1": {"closed_door", "bus", "number"}, "img_5": {"closed_door", "bus"}, "img_7": {"bus", "number"}}


def test_parquet_of_hugging_face(formats: Path) -> None:
    path = str(formats / "hf_parquet/train-00000-of-00001.parquet")
    stated = read(format="huggingface", images=path, key="image_id")
    assert stated.label_space.names == ("bird", "cat", "dog")
    assert labels_of(stated) == {
        "x1": Labels({"bird", "dog"}, set(), set()),
        "x2": Labels(set(), set(), set()),
        "x3": Labels(set(), set(), {"bird", "cat", "dog"}),
    }


def test_a_tar_of_webdataset(formats: Path) -> None:
    found = present_in(format="webdataset", images=str(formats / "webdataset/sample.tar"))
    assert list(found) == ["10", "11", "12", "13", "14", "15"]
    assert all(len(labels) == 1 for labels in found.values())


LVIS = {
    "266409": ({982, 985}, {53, 284, 299, 541, 566, 654, 754}),
    "66523": ({79, 110, 559, 817}, {66, 205, 277, 453, 610, 725, 774, 842, 860, 948, 1086, 1203}),
    "544519": ({1122}, {59, 102, 349, 687, 757, 948}),
    "89648": ({235, 642, 998, 1014, 1183}, {12, 88, 224, 388, 463, 641, 751, 871}),
}


def test_lvis_leaves_unknown_what_was_not_looked_for(formats: Path) -> None:
    stated = read(images=".", annotations=str(formats / "lvis/lvis_val_4.json"))
    assert stated.rest == "unknown"
    space = stated.label_space
    id_of = dict(zip(space.names, space.category_ids, strict=True))
    found = {
        key: tuple({id_of[name] for name in some} for some in (labels.present, labels.absent))
        for key, labels in labels_of(stated).items()
    }
    assert found == LVIS


def coco(formats: Path, name: str) -> dict[str, set[str]]:
    return present_in(images=".", annotations=str(formats / "coco_variants" / name))


def test_coco_variants(formats: Path) -> None:
    assert coco(formats, "labels_train.json") == {"5": {"b"}}
    assert coco(formats, "labels_val.json") == {"40": {"a", "b"}}
    assert coco(formats, "panoptic_train.json") == {"5": {"a"}}
    assert coco(formats, "panoptic_val.json") == {"40": {"a", "b"}}
    assert coco(formats, "roboflow/_annotations.coco.json") == {"1": {"label_0"}, "2": {"label_1"}}
    assert coco(formats, "roboflow/val_annotations.coco.json") == {"1": {"label_0", "label_1"}}
    with pytest.raises(SourceError, match=r"'categories' is empty; list at least one category \(image_info files"):
        coco(formats, "image_info_train.json")


def test_voc_sample_gives_the_official_class_lists(shared: Path) -> None:
    root = shared / "voc-sample/VOC2007"
    found = labels_of(read(format="voc", images=str(root), set="val"))
    assert len(found) == 400
    for path in (root / "ImageSets/Main").glob("*_val.txt"):
        name = path.stem.removesuffix("_val")
        for line in path.read_text().splitlines():
            stem, value = line.split()
            assert value == ("1" if name in found[stem].present else "0" if name in found[stem].unknown else "-1")
