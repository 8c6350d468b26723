"""Options that a run would have no use for: refused, because a caller expects that each does something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skelfit.config.pipeline import ImageMode
from skelfit.conversion.run_plan import Run
from skelfit.errors import ConfigError
from skelfit.labels.filters import REQUIRED_DATA
from skelfit.labels.label_store import StoreContents, store_contents
from skelfit.labels.read_settings import OptionError


@dataclass(frozen=True)
class GivenOptions:
    """What the command line asks for by name; a group of filters asks for none of them."""

    skel_gender: str | None = None
    images: bool = False
    image_mode: ImageMode | None = None
    crop_options: tuple[str, ...] = ()  # names of those that were given
    filters: tuple[str, ...] = ()
    independent_frames: bool = False


def check_image_options(given: GivenOptions, mode: ImageMode, *, has_images: bool) -> None:
    """Raise ConfigError for options of images that the mode, or no images at all, leaves without use."""
    if given.crop_options and mode != "crop":
        expected = f"--image-mode crop (images.mode of the pipeline), for {' and '.join(given.crop_options)}"
        raise ConfigError("command line", None, expected, f"the mode {mode}")
    option = next(iter(given.crop_options), "")
    if given.image_mode in ("bytes", "crop"):
        option = f"--image-mode {given.image_mode}"
    if option and not has_images:
        raise ConfigError("command line", None, f"images, for {option}", "neither --images nor a manifest's")


def check_given(run: Run, given: GivenOptions) -> None:
    """Raise OptionError for an option that fits none of the label files of a run; with no rows, any may be given."""
    files = [(file, store_contents(file.store, file.rows)) for file in run.labels if file.rows]
    if not files:
        return
    uses: list[tuple[bool, str, str, str, Callable[[StoreContents], bool]]] = [
        (
            given.skel_gender is not None,
            f"--skel-gender {given.skel_gender}",
            "people of neutral gender",
            "only male and female ones",
            lambda content: "neutral" in content.genders,
        ),
        (given.images, "--images", "names of images", "none", lambda content: content.has_names),
        (
            run.images is not None and (given.image_mode == "crop" or bool(given.crop_options)),
            next(iter(given.crop_options), "--image-mode crop"),
            "boxes of people",
            "none",
            lambda content: content.has_boxes,
        ),
        (
            given.independent_frames,
            "--independent-frames",
            "sequences",
            "none",
            lambda content: bool(content.sequences),
        ),
        *(
            (True, f"--filter {rule}", what, "none", lambda content, what=what: content.has(what))
            for rule, what in REQUIRED_DATA.items()
            if rule in given.filters
        ),
    ]
    for is_given, option, needed, present, has_use in uses:
        if is_given and not any(has_use(content) for _, content in files):
            kinds = " and ".join(dict.fromkeys(file.source for file, _ in files))
            names = ", ".join(file.name for file, _ in files)
            present = f"{present} in these {kinds} labels; drop {option}"
            raise OptionError(names, None, f"{needed}, for {option}", present)
