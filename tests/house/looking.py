"""What there is to find fault with on a page: for eyes, for the keyboard, for a screen reader."""

from dataclasses import dataclass
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_AXE = Axe()
# The rules of WCAG 2.1, levels A and AA. There are no frames, and nobody reads selectors: both cost time.
_OPTIONS: dict[str, Any] = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "resultTypes": ["violations"],
    "preload": False,
    "iframes": False,
    "selectors": False,
}

# What a person could not see: what its own box cuts off, and what sticks out of the window where nothing scrolls. On a
# wide screen no table scrolls either.
_HIDDEN = """() => {
    const scrolls = element => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const found = [];
    for (const element of document.body.querySelectorAll("*")) {
        if (!element.checkVisibility() || element.closest(".visually-hidden, .skip-to-content-link")) continue;
        if (element.closest("svg, select, input")) continue;
        const hides = ["hidden", "clip"].includes(getComputedStyle(element).overflowX);
        const slides = innerWidth > 1000 && element.matches(".results, .panel");
        const cut = (hides || slides) && element.scrollWidth > element.clientWidth + 1;
        const box = element.getBoundingClientRect();
        let out = box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
        for (let parent = element.parentElement; out && parent; parent = parent.parentElement) out = !scrolls(parent);
        if (cut || out) found.push(`${cut ? "cut off" : "sticks out"}: ${element.outerHTML.slice(0, 160)}`);
    }
    if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
    return found.map(what => `${what}, at ${innerWidth} pixels`);
}"""
# What can be used, and from now on: what the keyboard has come to, and where one could not see that.
_USABLE = """root => {
    window.reached = new Set();
    window.unseen = [];
    root.addEventListener("focusin", ({target}) => {
        if (target === root) return;
        const style = getComputedStyle(target);
        const native = target.matches("input, select, textarea");
        if (!native && style.outlineStyle === "none" && style.boxShadow === "none")
            window.unseen.push(target.outerHTML.slice(0, 160));
        window.reached.add(target);
    });
    root.tabIndex = -1;
    root.focus();
    window.usable = [...root.querySelectorAll("a[href], button, input, summary, select, textarea, [onclick]")]
        .filter(element => element.checkVisibility({visibilityProperty: true}) && !element.disabled)
        .filter(element => element.type !== "radio" || element.checked);
    return window.usable.length;
}"""
_MISSED = (
    "window.usable.filter(element => !window.reached.has(element)).map(element => element.outerHTML.slice(0, 160))"
)
# A box for a time is one element and several stops.
_FURTHER_STOPS = 6


@dataclass(frozen=True, slots=True)
class Reach:
    """How much can be used, what of it the keyboard did not come to, and where one could not see that it had."""

    usable: int
    missed: list[str]
    unseen: list[str]


def faults_of_accessibility(page: Page, *, part: str, colours: bool = True) -> list[str]:
    """The serious and the critical ones that axe finds in a part of the page, in the light scheme.

    Half of its time is for the colours.
    """
    return _serious(page, part=part, options=_OPTIONS | {"rules": {"color-contrast": {"enabled": colours}}})


def faults_of_the_dark(page: Page, *, part: str) -> list[str]:
    """What cannot be read in the dark scheme: colours are all that it changes."""
    _turn(page, "dark")
    found = _serious(page, part=part, options=_OPTIONS | {"runOnly": ["color-contrast"]})
    _turn(page, "light")
    return found


def _turn(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    # Some colours take a moment to change.
    page.evaluate("Promise.all(document.getAnimations().map(animation => animation.finished))")


def _serious(page: Page, *, part: str, options: dict[str, Any]) -> list[str]:
    return [
        f"{fault['id']}: {node['html'][:200]}"
        for fault in _AXE.run(page, context=part, options=options).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def hidden(page: Page, *, width: int, height: int = 900) -> list[str]:
    """What of the page cannot be seen in a window of this size without scrolling sideways."""
    page.set_viewport_size({"width": width, "height": height})
    found: list[str] = page.evaluate(_HIDDEN)
    return found


def reach(page: Page, *, part: str) -> Reach:
    """Go through a part of the page by the tabulator key."""
    usable = int(page.locator(part).first.evaluate(_USABLE))
    for _ in range(usable + _FURTHER_STOPS):
        page.keyboard.down("Tab")  # held down, it goes on
    page.keyboard.up("Tab")
    return Reach(usable, page.evaluate(_MISSED), page.evaluate("window.unseen"))
