"""What is to be done later, and what again and again: by the monotonic clock, in the thread that asks for it."""

import time
from dataclasses import dataclass, field

from kanikojobs.feeds import Act


@dataclass(slots=True)
class Agenda:
    """Of one thread. Nothing is done before `do_what_is_due` is called, so how often that is says how exact it is."""

    _later: list[tuple[float, Act]] = field(default_factory=list)
    _next: dict[str, float] = field(default_factory=dict)

    def after(self, seconds: float, act: Act) -> None:
        """Have something done once, in so many seconds."""
        self._later.append((time.monotonic() + seconds, act))

    def do_what_is_due(self) -> None:
        now = time.monotonic()
        due = [act for at, act in self._later if at <= now]
        if due:
            self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()

    def is_time(self, what: str, *, every: float) -> bool:
        """Whether so many seconds have gone since this was last true of `what`; at first it is."""
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every
        return True
