"""The project's own settings, for a web server that a browser looks at: as strict as ever, without a build step."""

from project.settings import *  # noqa: F403 - that is what this is

# Static files come from where they are written; `collectstatic` would put a copy into the checkout.
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 3600
# Real hashing takes its time on purpose, and here is nothing to guard.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# A browser asks for more pages in a minute than a person.
REST_FRAMEWORK["DEFAULT_THROTTLE_CLASSES"] = []  # noqa: F405
