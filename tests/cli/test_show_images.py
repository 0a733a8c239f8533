"""The lines that `shard` and `inspect` print of the images of a dataset."""

from rayprob.cli.show_images import lines_of


def test_upright_jpegs_need_no_line() -> None:
    assert list(lines_of({"images": {"JPEG": 12}, "exif_rotated": 0, "orientation": "upright"})) == []
    assert list(lines_of({})) == []  # the first datasets of 0.1


def test_every_notable_property_has_a_line_in_the_singular_or_plural() -> None:
    images = {
        "JPEG": 9,
        "PNG": 1200,
        "16-bit grey": 7,
        "16-bit colour": 1,
        "CMYK": 1,
        "animated": 2,
        "transparent": 3,
        "converted": 1,
    }
    assert list(lines_of({"images": images, "exif_rotated": 1, "orientation": "upright"})) == [
        "kinds of images: 9 JPEG, 1,200 PNG",
        "1 image is turned upright, as its EXIF states",
        "1 image was converted to an upright JPEG (encode)",
        "1 image is CMYK, read as RGB",
        "2 images are animations; their first frames are read",
        "3 images have transparency, composited over white",
        "1 image has 16 bits per colour; the upper 8 are read",
        "7 images have 16 bits of grey: the upper 8 are read",
    ]


def test_images_that_come_out_nearly_black_are_a_warning_with_its_remedy() -> None:
    dark = {"PNG": 7, "16-bit grey": 7, "nearly black grey": 7}
    assert list(lines_of({"images": dark, "orientation": "upright"}))[1:] == [
        "7 images have 16 bits of grey: the upper 8 are read",
        "warning: 7 images come out nearly black in 8 bits; set `window` in the recipe, such as [0, 4095] for 12 bits "
        "of grey, and build again",
    ]
    windowed = {"images": {"PNG": 7, "16-bit grey": 7}, "orientation": "upright", "window": [0, 4095]}
    assert list(lines_of(windowed))[1:] == ["7 images have 16 bits of grey: [0, 4095] becomes 0 to 255"]


def test_a_dataset_of_0_1_is_read_as_it_was_and_the_line_says_what_to_do() -> None:
    assert list(lines_of({"exif_rotated": 3})) == [
        "3 images are turned by EXIF but read as stored; build the dataset again to read them upright"
    ]
