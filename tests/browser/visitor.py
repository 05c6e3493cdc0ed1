"""Somebody with a browser."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Request

from tests.house.server import House


@dataclass
class Visitor:
    """Goes from page to page in one tab; what the browser complains of is kept."""

    house: House
    page: Page
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        self.page.goto(self.house.address + path)
        return self.page

    def be_at_home(self) -> Page:
        """On the home, which is asked for again only by who has left it."""
        return self.page if self.page.url == f"{self.house.address}/admin/" else self.go("/admin/")

    def log_in(self, *, user: str, password: str) -> None:
        """As a person does, on the page for it. Returns when the answer is there."""
        self.page.get_by_label("Username").fill(user)
        self.page.get_by_label("Password").fill(password)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def watch(self) -> None:
        """A violation of the Content-Security-Policy is an error of the console."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._see)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(f"{said.text} ({said.location.get('url')})")

    def _see(self, asked: Request) -> None:
        if not asked.url.startswith("data:") and urlsplit(asked.url).netloc != urlsplit(self.house.address).netloc:
            self.complaints.append(f"asked elsewhere: {asked.url}")
