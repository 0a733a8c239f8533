"""The layouts that people keep labels in, each written small: what a recipe says of it, and the message of those refused."""

import csv
import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.small_source import draw_jpeg
from tests.data.sources.test_same_labels import (
    NAMES,
    Pictures,
    as_coco,
    as_csv,
    as_folders,
    as_parquet,
    as_voc,
    as_webdataset,
    as_yolo,
    write_images,
    write_tar,
)

Split = dict[str, Any]
PICTURES: Pictures = {
    f"{number:03d}": (draw_jpeg(number, 24, 24), [name for bit, name in enumerate(NAMES) if number >> bit & 1])
    for number in range(1, 8)
}
TABLE = {"format": "table"}
VALUES = {True: "1.0", False: "0.0"}


@dataclass(frozen=True)
class Layout:
    """One layout: how it is written and read. `keys` are those of the recipe beside the split; `refused` is its message."""

    name: str
    write: Callable[[Path, Pictures], Split]
    refused: str = ""
    unknown: bool = False  # whether labels that are not present are unknown, and not absent


def table(folder: Path, name: str, rows: Iterable[Iterable[object]], delimiter: str = ",", **keys: Any) -> Split:
    """Write a table beside a folder of images; return the split that reads it."""
    write_images(folder / "images", PICTURES)
    with open(folder / name, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return {**TABLE, "images": str(folder / "images"), "annotations": str(folder / name), **keys}


def long_rows(pictures: Pictures, header: list[str], *, absent: bool = False) -> list[list[object]]:
    rows: list[list[object]] = [header]
    for name, (_, labels) in pictures.items():
        rows += [[name, label, 1] for label in labels]
        rows += [[name, label, 0] for label in NAMES if absent and label not in labels][:1]
    return rows


def edited(edit: Callable[[Path, dict[str, Any]], None], **keys: Any) -> Callable[[Path, Pictures], Split]:
    """Return what writes COCO JSON and then edits it."""

    def write(folder: Path, pictures: Pictures) -> Split:
        source = as_coco(folder, pictures)
        content = json.loads((folder / "labels.json").read_text())
        edit(folder, content)
        (folder / "labels.json").write_text(json.dumps(content))
        return {**source, **keys}

    return write


def as_gzip(folder: Path, pictures: Pictures) -> Split:
    source = as_coco(folder, pictures)
    (folder / "labels.json.gz").write_bytes(gzip.compress((folder / "labels.json").read_bytes()))
    return {**source, "annotations": str(folder / "labels.json.gz")}


def panoptic(folder: Path, content: dict[str, Any]) -> None:
    of_image: dict[int, list[dict[str, Any]]] = {}
    for box in content["annotations"]:
        of_image.setdefault(box["image_id"], []).append({"id": 7, "category_id": box["category_id"], "area": 4})
    content["annotations"] = [
        {"image_id": image, "file_name": f"{image}.png", "segments_info": some} for image, some in of_image.items()
    ]


def text_ids(folder: Path, content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["id"] = f"img-{image['id']}"
    for place, box in enumerate(content["annotations"]):
        box |= {"image_id": f"img-{box['image_id']}", "id": place // 2}


def lvis(folder: Path, content: dict[str, Any]) -> None:
    (folder / "images/val2017").mkdir()
    for image in content["images"]:
        name = image.pop("file_name")
        (folder / "images" / name).rename(folder / "images/val2017" / name)
        image |= {"coco_url": f"http://images.cocodataset.org/val2017/{name}", "neg_category_ids": []}
        image["not_exhaustive_category_ids"] = []


def roboflow(folder: Path, content: dict[str, Any]) -> None:
    for entry in content["categories"]:
        entry |= {"id": entry["id"] + 1, "supercategory": "objects"}
    for box in content["annotations"]:
        box["category_id"] += 1
    content["categories"].insert(0, {"id": 0, "name": "objects", "supercategory": "none"})


def unknown_ids(folder: Path, content: dict[str, Any]) -> None:
    labels: dict[int, set[int]] = {}
    for box in content["annotations"]:
        labels.setdefault(box["image_id"], set()).add(box["category_id"])
    for image in content["images"]:
        image["unknown_category_ids"] = sorted({0, 1, 2} - labels[image["id"]])


def urls(folder: Path, content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["file_name"] = f"https://example.org/{image['file_name']}"


def no_suffix(folder: Path, pictures: Pictures) -> Split:
    rows = [["id", *NAMES], *([name, *(label in labels for label in NAMES)] for name, (_, labels) in pictures.items())]
    return table(folder, "labels.tsv", rows, "\t", one_hot="2..4")


def chexpert(folder: Path, pictures: Pictures) -> Split:
    rows = [["Path", "Age", *NAMES]]
    for name, (_, labels) in pictures.items():
        rows.append(
            [f"images/{name}.jpg", "40", *("1.0" if label in labels else ("", "-1.0")[len(labels) % 2] for label in NAMES)]
        )
    split = table(folder, "labels.csv", rows, one_hot="cat..traffic light", values={"-1": "unknown"})
    return {**split, "images": str(folder)}


def chestxray(folder: Path, pictures: Pictures) -> Split:
    rows = [["Image Index", "Finding Labels"], *([f"{name}.jpg", "|".join(labels)] for name, (_, labels) in pictures.items())]
    return table(folder, "labels.csv", rows, lists="Finding Labels", separator="|", no_label=["No Finding"])


def open_images(folder: Path, pictures: Pictures) -> Split:
    code = {name: f"/m/{place}" for place, name in enumerate(NAMES)}
    rows = [["ImageID", "LabelName", "Confidence"]]
    rows += [[name, code[label], "1"] for name, (_, labels) in pictures.items() for label in labels]
    split = table(folder, "labels.csv", rows, label="LabelName", value="Confidence", names=str(folder / "names.csv"))
    (folder / "names.csv").write_text("".join(f"{mid},{name}\n" for name, mid in code.items()))
    return split


def listed(*, several: bool) -> Callable[[Path, Pictures], Split]:
    def write(folder: Path, pictures: Pictures) -> Split:
        rows: list[list[object]] = []
        for name, (_, labels) in pictures.items():
            numbers = [NAMES.index(label) for label in labels]
            rows += [[f"{name}.jpg", *numbers]] if several else [[f"{name}.jpg", number] for number in numbers]
        keys = {"lists": "2.."} if several else {"label": 2}
        split = table(folder, "labels.txt", rows, " ", header=False, names=str(folder / "names.txt"), **keys)
        (folder / "names.txt").write_text("\n".join(NAMES))
        return split

    return write


def json_lines(folder: Path, pictures: Pictures) -> Split:
    split = table(folder, "labels.jsonl", [], image="file", lists="tags")
    lines = [json.dumps({"file": f"{name}.jpg", "tags": labels}) for name, (_, labels) in pictures.items()]
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return split


def parquet(*, wide: bool) -> Callable[[Path, Pictures], Split]:
    def write(folder: Path, pictures: Pictures) -> Split:
        split = table(folder, "labels.parquet", [], **({"one_hot": NAMES} if wide else {"lists": "labels"}))
        columns: dict[str, Any] = {"image": [f"{name}.jpg" for name in pictures]}
        sets = [labels for _, labels in pictures.values()]
        columns |= {label: [label in some for some in sets] for label in NAMES} if wide else {"labels": sets}
        pq.write_table(pa.table(columns), folder / "labels.parquet")
        return split

    return write


def pandas_lists(folder: Path, pictures: Pictures) -> Split:
    rows = [["image", "labels"], *([f"{name}.jpg", str(labels)] for name, (_, labels) in pictures.items())]
    return table(folder, "labels.csv", rows, lists="labels")


def with_splits(folder: Path, pictures: Pictures) -> Split:
    rows = [["image", "split", *NAMES]]
    rows += [[f"{n}.jpg", "train", *(VALUES[label in labels] for label in NAMES)] for n, (_, labels) in pictures.items()]
    rows += [["other.jpg", "test", "1", "0", "0"]]
    return table(folder, "labels.csv", rows, one_hot="3..", where={"split": "train"})


def voc_beside(folder: Path, pictures: Pictures) -> Split:
    as_voc(folder / "voc", pictures)
    write_images(folder / "train", pictures)
    for path in (folder / "voc/Annotations").iterdir():
        path.rename(folder / "train" / path.name)
    return {"format": "voc", "images": str(folder / "train")}


def cvat(folder: Path, pictures: Pictures) -> Split:
    source = voc_beside(folder, pictures)
    (folder / "train/001.xml").write_text("<annotations><image id='0' name='001.jpg'/></annotations>")
    return source


def yolo_yaml(folder: Path, pictures: Pictures) -> Split:
    source = as_yolo(folder, pictures)
    (folder / "data.yaml").write_text("train: ../images\nnc: 3\nnames:\n  0: cat\n  1: dog\n  2: traffic light\n")
    return {**source, "names": str(folder / "data.yaml")}


def metadata(name: str) -> Callable[[Path, Pictures], Split]:
    def write(folder: Path, pictures: Pictures) -> Split:
        write_images(folder, pictures)
        rows = [{"file_name": f"{one}.jpg", "labels": labels} for one, (_, labels) in pictures.items()]
        text = "\n".join(map(json.dumps, rows))
        if name.endswith("csv"):
            text = "file_name,labels\n" + "\n".join(f"{row['file_name']},{';'.join(row['labels'])}" for row in rows)
        (folder / name).write_text(text)
        separator = {"separator": ";"} if name.endswith("csv") else {}
        return {"format": "huggingface", "images": str(folder), "label": "labels", **separator}

    return write


def class_labels(folder: Path, pictures: Pictures) -> Split:
    folder.mkdir(parents=True)
    features = {"labels": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "List"}, "image": {"_type": "Image"}}
    table = pa.table(
        {
            "image": [{"bytes": jpeg, "path": None} for jpeg, _ in pictures.values()],
            "labels": [[NAMES.index(label) for label in labels] for _, labels in pictures.values()],
            "name": list(pictures),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    return {"format": "huggingface", "images": str(folder / "train-*.parquet"), "key": "name"}


def tar(suffix: str, encode: Callable[[list[str]], bytes], **keys: Any) -> Callable[[Path, Pictures], Split]:
    def write(folder: Path, pictures: Pictures) -> Split:
        folder.mkdir(parents=True)
        members = [
            (f"{name}.{kind}", content)
            for name, (jpeg, labels) in pictures.items()
            for kind, content in (("jpg", jpeg), (suffix, encode(labels)), ("txt2", b"a caption"))
        ]
        write_tar(folder / "00000.tar", members)
        return {"format": "webdataset", "images": str(folder / "00000.tar"), **keys}

    return write


def packed_tar(folder: Path, pictures: Pictures) -> Split:
    split = as_webdataset(folder, pictures)
    path = folder / "000.tar"
    path.write_bytes(gzip.compress(path.read_bytes()))
    return {**split, "images": str(path)}


def gif(folder: Path, pictures: Pictures) -> Split:
    split = as_csv(folder, pictures)
    for path in (folder / "images").iterdir():
        path.write_bytes(b"GIF89a" + bytes(40))
    return split


def spreadsheet(folder: Path, pictures: Pictures) -> Split:
    split = as_csv(folder, pictures)
    (folder / "labels.xlsx").write_bytes(b"PK\x03\x04")
    return {**split, "annotations": str(folder / "labels.xlsx")}


LAYOUTS = (
    Layout("COCO instances", as_coco),
    Layout("COCO, gzipped", as_gzip),
    Layout("COCO, ids missing from annotations, or text", edited(text_ids)),
    Layout("COCO panoptic", edited(panoptic)),
    Layout("COCO with unknown_category_ids", edited(unknown_ids), unknown=True),
    Layout("LVIS", edited(lvis), unknown=True),
    Layout("Roboflow COCO, with its root category", edited(roboflow)),
    Layout("CSV, a column per label", as_csv),
    Layout("TSV, a column per label, names without suffix", no_suffix),
    Layout("CSV with a column of splits", with_splits),
    Layout("CheXpert: 1, blank, -1", chexpert, unknown=True),
    Layout("ChestX-ray14: cells joined by |", chestxray),
    Layout("CSV, lists as pandas writes them", pandas_lists),
    Layout("CSV, a row per box or label", lambda f, p: table(f, "l.csv", long_rows(p, ["image", "label", "x"]), label="label")),
    Layout("Open Images: rows with a confidence", open_images, unknown=True),
    Layout("ImageNet lists: name and number", listed(several=False)),
    Layout("text, a name and several numbers", listed(several=True)),
    Layout("JSON lines", json_lines),
    Layout("Parquet with lists of labels", parquet(wide=False)),
    Layout("Parquet, a column per label", parquet(wide=True)),
    Layout("Pascal VOC with ImageSets", as_voc),
    Layout("VOC XML next to images (Roboflow)", voc_beside),
    Layout("YOLO with data.yaml", yolo_yaml),
    Layout("YOLO with classes.txt (Label Studio)", as_yolo),
    Layout("a folder per label", as_folders),
    Layout("Hugging Face Parquet, names as text", as_parquet),
    Layout("Hugging Face Parquet, ClassLabel", class_labels),
    Layout("Hugging Face folder with metadata.csv", metadata("metadata.csv")),
    Layout("Hugging Face folder with metadata.jsonl", metadata("metadata.jsonl")),
    Layout("WebDataset, labels in .json", as_webdataset),
    Layout("WebDataset, labels in .cls", tar("cls", lambda some: ",".join(some).encode(), separator=",")),
    Layout(
        "img2dataset, labels under a key of .json",
        tar("json", lambda some: json.dumps({"key": "0", "meta": {"tags": some}}).encode(), label="meta.tags"),
    ),
    Layout("CVAT's own XML", cvat, refused="contains <annotations>, not <annotation>; give VOC's XML"),
    Layout("a packed tar (.tar.gz)", packed_tar, refused="images are read by their position in a tar; unpack it"),
    Layout("images of another kind (GIF)", gif, refused="is a GIF, not a JPEG, PNG or WebP; save one of its frames as PNG"),
    Layout("images by URL", edited(urls), refused="file_name that is a URL"),
    Layout("a spreadsheet (.xlsx)", spreadsheet, refused="give a .csv, .tsv, .txt, .jsonl or .parquet file"),
)
