"""What there is to find fault with on a page: for eyes, for the keyboard, for a screen reader."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize

DESK: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 900}
Scheme = Literal["light", "dark"]

_AXE = Axe()
# The rules of WCAG 2.1, levels A and AA. There are no frames, and nobody reads selectors: both cost time.
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
_OPTIONS: dict[str, Any] = {"preload": False, "iframes": False, "selectors": False}
_STRUCTURE = _OPTIONS | {
    "runOnly": _TAGS,
    "resultTypes": ["violations"],
    "rules": {"color-contrast": {"enabled": False}},
}
_CONTRAST = _OPTIONS | {"runOnly": ["color-contrast"]}

# The later rows of a table, or items of a list, that are made like two before them.
_FEW = """() => {
    const shape = element => `${element.tagName}.${element.className}(${[...element.children].map(shape)})`;
    for (const parent of document.querySelectorAll("tbody, ul, ol, svg, g, select")) {
        const count = {};
        for (const child of [...parent.children]) {
            const made = shape(child);
            count[made] = (count[made] ?? 0) + 1;
            if (count[made] > 2) child.remove();
        }
    }
}"""
# One text of each kind that is not known yet: what decides over its contrast is its own colour, whether it is large
# (18 points, or 14 and bold, as WCAG has it), and what is behind it. Marks them by their place in the list of kinds.
_KINDS_OF_TEXT = """([part, known]) => {
    const seen = new Set(known), found = [], behind = new Map();
    const ground = element => {
        if (!element) return "";
        if (!behind.has(element)) {
            const style = getComputedStyle(element);
            const own = [style.backgroundColor, style.backgroundImage, style.opacity].join(" ");
            behind.set(element, /^rgb\\(.* none 1$/.test(own) ? own : `${own}/${ground(element.parentElement)}`);
        }
        return behind.get(element);
    };
    for (const element of document.querySelectorAll("[data-kind]")) delete element.dataset.kind;
    for (const element of document.querySelector(part).querySelectorAll("*")) {
        const text = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
        if (!text && !element.matches("input, textarea")) continue;
        if (!element.checkVisibility({visibilityProperty: true}) || element.closest("svg, .visually-hidden")) continue;
        const style = getComputedStyle(element);
        const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const kind = [style.color, large, style.textShadow, ground(element)].join("|");
        if (seen.has(kind) || element.disabled) continue;
        seen.add(kind);
        element.dataset.kind = found.push(kind) - 1;
    }
    return found;
}"""

# What a person could not see: what its own box cuts off, and what sticks out of the window where nothing scrolls. On a
# wide screen no table scrolls either.
_HIDDEN = """() => {
    const scrolls = element => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const found = [];
    for (const element of document.body.querySelectorAll("*")) {
        if (!element.checkVisibility() || element.closest(".visually-hidden, .skip-to-content-link")) continue;
        if (element.closest("svg, select, input")) continue;
        // A button with a picture has its words for those who do not see it.
        if (parseInt(getComputedStyle(element).textIndent) < -1000) continue;
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


@dataclass(slots=True)
class Eyes:
    """Looks at pages one after the other, and at each kind of text once in either scheme, wherever it comes first."""

    known: dict[Scheme, set[str]] = field(default_factory=lambda: {"light": set(), "dark": set()})

    def faults(self, page: Page, *, part: str = "body") -> list[str]:
        """What is wrong with the page, in words; the page is not the same afterwards.

        What does not fit is looked for on the whole page, in the window of a desk and of a phone; the rest in `part`,
        and of rows that are made alike in the first ones.
        """
        found = [*hidden(page, size=DESK), *hidden(page, size=PHONE)]
        page.set_viewport_size(DESK)
        page.evaluate(_FEW)
        page.evaluate(_AXE.axe_script)
        found += [f"{fault}" for fault in _serious(page, context=part, options=_STRUCTURE)[0]]
        found += [fault for scheme in ("light", "dark") for fault in self._unreadable(page, part=part, scheme=scheme)]
        _turn(page, "light")
        went = reach(page, part=part)
        found += [f"the keyboard does not reach {what}" for what in went.missed]
        return found + [f"the keyboard is not seen at {what}" for what in went.unseen]

    def _unreadable(self, page: Page, *, part: str, scheme: Scheme) -> list[str]:
        _turn(page, scheme)
        kinds: list[str] = page.evaluate(_KINDS_OF_TEXT, [part, list(self.known[scheme])])
        if not kinds:
            return []
        found, decided = _serious(page, context="[data-kind]", options=_CONTRAST)
        self.known[scheme] |= {kinds[number] for number in decided}
        return [f"in the {scheme}, {fault}" for fault in found]


def _turn(page: Page, scheme: Scheme) -> None:
    page.emulate_media(color_scheme=scheme)
    # Some colours take a moment to change.
    page.evaluate("document.getAnimations().forEach(animation => animation.finish())")


def _serious(page: Page, *, context: str, options: dict[str, Any]) -> tuple[list[str], set[int]]:
    """The serious and the critical faults that axe finds, and which of the marked texts it could decide on."""
    response = page.evaluate("([context, options]) => axe.run(context, options)", [context, options])
    faults = [
        f"{fault['id']}: {node['html'][:200]}"
        for fault in response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    decided = [
        node["html"] for result in ("passes", "violations") for rule in response[result] for node in rule["nodes"]
    ]
    marks = (re.match(r'[^>]*data-kind="(\d+)"', html) for html in decided)
    return faults, {int(mark[1]) for mark in marks if mark}


def hidden(page: Page, *, size: ViewportSize) -> list[str]:
    """What of the page cannot be seen in a window of this size without scrolling sideways."""
    page.set_viewport_size(size)
    found: list[str] = page.evaluate(_HIDDEN)
    return found


def reach(page: Page, *, part: str) -> Reach:
    """Go through a part of the page by the tabulator key."""
    usable = int(page.locator(part).first.evaluate(_USABLE))
    for _ in range(usable + _FURTHER_STOPS):
        page.keyboard.down("Tab")  # held down, it goes on
    page.keyboard.up("Tab")
    return Reach(usable, page.evaluate(_MISSED), page.evaluate("window.unseen"))
