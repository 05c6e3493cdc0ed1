"""A look into a body that nobody vouches for: whose event it may be, for the search and for nothing else.

It must not cost or fail, whatever the body is: broken JSON, a megabyte of brackets, bytes that are no text.
"""

import re

# An honest event has these names near its start, whichever content mode it is in.
_BYTES_READ = 64 * 1024
_IDENTIFIER = rb'\s*:\s*"([A-Za-z0-9][A-Za-z0-9._-]{0,127})"'
_THIRD_PARTY = re.compile(rb'"third_party_id"' + _IDENTIFIER)
_PARSER = re.compile(rb'"parser_id"' + _IDENTIFIER)


def whose(body: bytes) -> tuple[str, str]:
    """The third party's id and the parser's, each empty if it is not to be seen."""
    start = body[:_BYTES_READ]
    third_party, parser = _THIRD_PARTY.search(start), _PARSER.search(start)
    return (
        third_party[1].decode("ascii") if third_party else "",
        parser[1].decode("ascii") if parser else "",
    )
