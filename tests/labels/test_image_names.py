"""From image names in label files to paths of images: each rule, and what no rule may let through."""

from __future__ import annotations

from typing import get_args

import pytest

from skelfit.config.manifest import PathRule
from skelfit.labels.image_names import image_path

GOOD = [
    ("none", "a/b/c.jpg", "a/b/c.jpg"),
    ("basename", "train2014/COCO_train2014_000000000009.jpg", "COCO_train2014_000000000009.jpg"),
    ("basename", "015601864.jpg", "015601864.jpg"),
    ("aic", "aic-train/0a1b2c.jpg", "0a1b2c.jpg"),
    ("aic", "images/aic-train/a/aic-train/b.jpg", "images/a/aic-train/b.jpg"),  # once, wherever it is
    ("aic", "0a1b2c.jpg", "0a1b2c.jpg"),
    ("insta", "insta-train/12/user_2019-03_clip7_part_9/7.jpg", "12/user_20_cl_9/0007.jpg"),
    ("insta", "insta-train/12/user_2019_clip_9/000012.jpg", "12/user_20_cl_9/0012.jpg"),
    ("insta", "insta-train/12/u_2_c/12345.png", "12/u_2_c_c/12345.png"),  # short words, long frame
    ("insta", "insta-train/12/a_bbb_ccc_z/x/3.jpg", "12/a_bb_cc_z/x/0003.jpg"),
    ("append_jpg", "S1/S1_Directions_1.54138969_000001", "S1/S1_Directions_1.54138969_000001.jpg"),
]


@pytest.mark.parametrize(("rule", "name", "path"), GOOD)
def test_rules(rule: PathRule, name: str, path: str) -> None:
    assert image_path(name, rule) == path


def test_every_rule_is_tested() -> None:
    assert {rule for rule, _, _ in GOOD} == set(get_args(PathRule))


@pytest.mark.parametrize(
    "name",
    [
        "7.jpg",
        "insta-train/12/7.jpg",
        "insta-train/12/a_b_c_d.jpg",
        "insta-train/12/a_b/7.jpg",
        "insta-train/12/a_b_c_z/x.jpg",
        "insta-train/12/a_b_c_z/٧.jpg",  # a digit, but not ours
    ],
)
def test_a_name_of_another_form_has_no_path(name: str) -> None:
    assert image_path(name, "insta") == ""


def test_a_prefix_comes_before_what_the_rule_gives() -> None:
    assert image_path("aic-train/b.jpg", "aic", "images/aic-train/") == "images/aic-train/b.jpg"
    assert image_path("7.jpg", "insta", "images/") == image_path("/b.jpg", "none", "images/") == ""


def test_paths_stay_in_the_folder() -> None:
    for name in ("/etc/passwd", "../x.jpg", "a/../../x.jpg", "..\\x.jpg"):
        assert image_path(name, "none") == image_path(name, "append_jpg") == ""
    assert image_path("aic-train//etc/passwd.jpg", "aic") == ""
    assert image_path("insta-train/../a_b_c_d/7.jpg", "insta") == ""
    assert image_path("insta-train//a_b_c_d/7.jpg", "insta") == ""
    assert image_path("../../x.jpg", "basename") == "x.jpg"
