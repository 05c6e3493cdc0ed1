"""Django's formats of `en`, of which only these differ (Django's documentation, "Creating custom format files")."""

DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i:s"
DATETIME_FORMAT = "j M Y H:i:s"
