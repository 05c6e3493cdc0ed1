"""The README's pictures, taken of the demo: `make screenshots`. Few and small, for they are kept in the repository."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser

from deploy.local.chromium import NoChromium
from deploy.local.processes import StackError
from deploy.local.stack import CHECKOUT, LOCAL, LocalStack
from tests.house import browser as chromium
from tests.house.server import House, a_house

PLACE = CHECKOUT / "deploy" / "pictures"
MOST_BYTES = 150_000


@dataclass(frozen=True, slots=True)
class Picture:
    """The upper part of a page, and how it is looked at. In the path `{MODEL}` is the row worth looking at."""

    file: str
    path: str
    scheme: Literal["light", "dark"]
    height: int


PICTURES = (
    Picture("home.png", "/admin/", "light", 960),
    Picture("event.png", "/admin/kanikojobs/jobstartevent/{kanikojobs.jobstartevent}/change/", "dark", 860),
    Picture("failure-group.png", "/admin/kanikojobs/failuregroup/{kanikojobs.failuregroup}/change/", "light", 660),
)


def take(picture: Picture, *, rows: Mapping[str, int], browser: Browser, house: House) -> Path:
    """Take one. Raises `ValueError` when it is too large to be kept."""
    with browser.new_context(
        viewport={"width": 1440, "height": picture.height},
        device_scale_factor=0.8,
        color_scheme=picture.scheme,
        storage_state=chromium.log_in(browser, house),
    ) as context:
        page = context.new_page()
        path = re.sub(r"{(.+?)}", lambda name: str(rows[name[1]]), picture.path)
        page.goto(house.address + path, timeout=chromium.PATIENCE_MS)
        image = page.screenshot(animations="disabled")
    if len(image) > MOST_BYTES:
        raise ValueError(f"{picture.file} has {len(image):,} bytes, more than {MOST_BYTES:,}: show less of the page")
    file = PLACE / picture.file
    file.write_bytes(image)
    return file


def main() -> str | None:
    """Take all of them. Returns what went wrong, in words."""
    PLACE.mkdir(exist_ok=True)
    try:
        with (
            chromium.a_browser() as browser,
            LocalStack(folder=LOCAL / "screenshots", durable=False) as stack,
            a_house(stack) as house,
        ):
            rows = house.furnish()
            for picture in PICTURES:
                print(take(picture, rows=rows, browser=browser, house=house).relative_to(CHECKOUT))
    except (NoChromium, StackError, ValueError) as problem:
        return str(problem)
    return None


if __name__ == "__main__":
    sys.exit(main())
