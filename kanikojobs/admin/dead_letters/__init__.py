"""The pages of failures: groups of equal ones, dead letters, and replays from the plan to the last result."""

from kanikojobs.admin.dead_letters import groups, letters, replays, rules

__all__ = ["groups", "letters", "replays", "rules"]
