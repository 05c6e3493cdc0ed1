"""The admin's pages: lists with search and filters, and a page per row, for those who may view them.

Django-Q2's own pages stay out: its "resubmit" deletes history and ignores permissions, and our tables are the truth.
"""

from kanikojobs.admin import actions_of_operators, build_profiles, dead_letters, pages, people

__all__ = ["actions_of_operators", "build_profiles", "dead_letters", "pages", "people"]
