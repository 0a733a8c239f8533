"""Drawn scenes: looks, placement, and boxes against a painter's brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from rayprob.errors import SpecError
from rayprob.labels import COCO_80
from rayprob.scenes.drawing import TEXTURES, Stamp, extent_per_size, paint, stamp
from rayprob.scenes.layout import MIN_VISIBLE, MIN_VISIBLE_PX2, Scene, arrange, draw, random_box
from rayprob.scenes.shapes import LOOK_OF_LABEL, PALETTE, SHAPES, parse_part, shape_parts


def solid(item: Stamp, height_px: int, width_px: int) -> np.ndarray:
    """The pixels that an object covers, found pixel by pixel of its own grid."""
    mask_HW = np.zeros((height_px, width_px), dtype=bool)
    rows, columns = np.nonzero(item.coverage_HW >= 128)
    rows, columns = rows + item.top_px, columns + item.left_px
    inside = (rows >= 0) & (rows < height_px) & (columns >= 0) & (columns < width_px)
    mask_HW[rows[inside], columns[inside]] = True
    return mask_HW


def painted_owners(scene: Scene) -> np.ndarray:
    """Which object one sees at each pixel, -1 for the backdrop, by painting from back to front."""
    owner_HW = np.full((scene.height_px, scene.width_px), -1)
    for place in reversed(range(len(scene.objects))):
        owner_HW[solid(scene.objects[place].stamp, scene.height_px, scene.width_px)] = place
    return owner_HW


def test_each_label_has_its_own_look_and_no_shape_is_idle() -> None:
    assert set(LOOK_OF_LABEL) == set(COCO_80.names)
    assert len({(look.shape, look.colour, look.texture) for look in LOOK_OF_LABEL.values()}) == 80
    drawn = {line.split(":")[0] for line in SHAPES.splitlines() if not line.startswith(" ")}
    assert {look.shape for look in LOOK_OF_LABEL.values()} == drawn
    for look in LOOK_OF_LABEL.values():
        assert look.colour in PALETTE
        assert look.trim in PALETTE
        assert look.texture in TEXTURES
        assert {part.paint for part in shape_parts(look.shape)} <= PALETTE.keys() | {"body", "trim", "hole"}


def test_unknown_shapes_and_parts_name_the_allowed_ones() -> None:
    with pytest.raises(SpecError, match=r"unknown shape 'hores'; nearest: horse"):
        shape_parts("hores")
    with pytest.raises(SpecError, match=r"unknown kind of part 'dics'; nearest: disc; allowed: poly, blob, box, disc, bar"):
        parse_part("red dics 0 0 10")


def test_a_size_is_the_root_of_the_drawn_area() -> None:
    for label in ("person", "skis", "fork", "donut"):
        extent_px = 50 * extent_per_size(label)
        item = stamp(label, np.array([[extent_px, 0, 0], [0, extent_px, 0]], np.float32))
        assert (item.coverage_HW >= 128).sum() == pytest.approx(50**2, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(COCO_80.names), unique=True, max_size=9), st.integers(0, 2**32), st.sampled_from([64, 160]))
def test_boxes_are_the_extents_of_what_is_visible(labels: list[str], seed: int, size_px: int) -> None:
    scene = arrange(labels, size_px, seed)
    owner_HW = painted_owners(scene)
    assert {item.stamp.label for item in scene.objects} == set(labels)
    assert set(np.unique(owner_HW)) - {-1} == set(range(len(scene.objects)))
    for place, item in enumerate(scene.objects):
        rows, columns = np.nonzero(owner_HW == place)
        left, top, width, height = item.box_xywh
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
        assert item.area_px2 == len(rows)
        assert len(rows) >= max(MIN_VISIBLE_PX2, MIN_VISIBLE * (item.stamp.coverage_HW >= 128).sum())


def test_a_crowd_of_all_labels_finds_room() -> None:
    scene = arrange(COCO_80.names, 320, seed=0)
    assert {item.stamp.label for item in scene.objects} == set(COCO_80.names)


def test_objects_overlap_and_come_in_all_of_cocos_sizes() -> None:
    scenes = [arrange(["person", "car", "dog"], 640, seed) for seed in range(60)]
    areas_px2 = np.array([item.area_px2 for scene in scenes for item in scene.objects])
    shares = [np.mean(areas_px2 < 32**2), np.mean((areas_px2 >= 32**2) & (areas_px2 < 96**2)), np.mean(areas_px2 >= 96**2)]
    assert min(shares) > 0.05
    hidden = [item.area_px2 < (item.stamp.coverage_HW >= 128).sum() for scene in scenes for item in scene.objects]
    assert 0.1 < np.mean(hidden) < 0.6
    assert max(len(scene.objects) for scene in scenes) > 4


def test_pictures_have_their_long_side_and_varied_shapes_and_a_few_are_grey() -> None:
    scenes = [arrange([], 160, seed) for seed in range(4000)]
    assert {max(scene.height_px, scene.width_px) for scene in scenes} == {160}
    assert len({(scene.height_px, scene.width_px) for scene in scenes}) > 40
    assert 0.2 < np.mean([scene.height_px > scene.width_px for scene in scenes]) < 0.35
    assert abs(np.mean([scene.is_grey for scene in scenes]) - 0.01) < 5 * np.sqrt(0.01 * 0.99 / 4000)


def test_painting_changes_what_is_covered_and_only_that_and_the_shadow() -> None:
    ground_HW3 = np.full((90, 120, 3), 200, np.uint8)
    item = stamp("car", np.array([[30, 4, 50], [-3, 30, 40]], np.float32))
    picture_HW3 = ground_HW3.copy()
    paint(picture_HW3, item, np.random.default_rng(0))
    changed_HW = (picture_HW3 != ground_HW3).any(axis=2)
    assert changed_HW[solid(item, 90, 120)].mean() > 0.98
    reach_HW = np.zeros((90, 120), dtype=bool)
    rows, columns = np.nonzero(changed_HW)
    height, width = item.coverage_HW.shape
    margin = item.margin_px
    reach_HW[item.top_px : item.top_px + height + margin, item.left_px : item.left_px + width + margin] = True
    assert reach_HW[rows, columns].all()


def test_an_object_beyond_the_edge_is_cut_and_one_far_out_paints_nothing() -> None:
    for centre, is_seen in (((0, 0), True), ((500, 40), False), ((-300, -300), False)):
        picture_HW3 = np.full((90, 120, 3), 200, np.uint8)
        item = stamp("dog", np.array([[30, 0, centre[0]], [0, 30, centre[1]]], np.float32))
        paint(picture_HW3, item, np.random.default_rng(0))
        assert (picture_HW3 != 200).any() == is_seen


def test_labels_are_told_apart_by_their_pictures() -> None:
    def look(label: str, seed: int) -> np.ndarray:
        picture_HW3 = np.full((32, 32, 3), 160, np.uint8)
        paint(picture_HW3, stamp(label, np.array([[14, 0, 16], [0, 14, 16]], np.float32)), np.random.default_rng(seed))
        return picture_HW3.astype(np.float32).ravel()

    first_LP, second_LP = (np.stack([look(label, seed) for label in COCO_80.names]) for seed in (1, 2))
    distance_LL = cdist(first_LP, second_LP)
    assert (distance_LL.argmin(axis=1) == np.arange(80)).all()


def test_the_same_seed_draws_the_same_picture_and_another_one_another() -> None:
    scene = arrange(["person", "kite"], 160, seed=5)
    assert (draw(scene, 6) == draw(arrange(["person", "kite"], 160, seed=5), 6)).all()
    assert (draw(scene, 6) != draw(scene, 7)).any()


def test_made_up_boxes_lie_inside_the_picture() -> None:
    rng = np.random.default_rng(0)
    for seed in range(100):
        scene = arrange(["person"], 64, seed)
        left, top, width, height = random_box(scene, rng)
        assert min(left, top) >= 0
        assert min(width, height) >= 1
        assert left + width <= scene.width_px
        assert top + height <= scene.height_px
