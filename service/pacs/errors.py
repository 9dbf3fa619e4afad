"""What can go wrong with a node. No message holds a UID or a header value."""

from ..errors import ServiceError


class PacsUnavailableError(ServiceError):
    """The node cannot be reached, broke off, or is overloaded: the same may work later."""

    code = "pacs_unavailable"


class PacsDeniedError(PacsUnavailableError):
    """The node lets nobody in under this AE title, user, token or URL: it may work once somebody
    has put the site file or the node right."""

    code = "pacs_denied"


class PacsRefusedError(ServiceError):
    """The node does not take this kind of object or question, and will not take it later."""

    code = "pacs_refused"
