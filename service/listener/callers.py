"""Who may send."""

import socket
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from ..errors import UnsafeAddressError
from ..settings import Settings, is_loopback
from ..site import Caller, Site


def check_listen_address(settings: Settings, site: Site) -> None:
    """Refuse a public address on which anybody could send: ``UnsafeAddressError``."""
    checked = site.callers or settings.listen_tls_ca
    if not is_loopback(settings.listen_host) and not checked:
        raise UnsafeAddressError(
            f"{settings.listen_host} can be reached from outside and everybody could send; name "
            "callers in the site file, or ask them for certificates (AQCF_LISTEN_TLS_CA)"
        )


def is_known(callers: Iterable[Caller], ae_title: str, address: str) -> bool:
    """Whether one of ``callers`` has this title and, where it names a host, sends from there.
    Without callers everybody is known."""
    callers = tuple(callers)
    return not callers or any(
        is_title([one], ae_title) and _sends_from(one, address) for one in callers
    )


def is_title(callers: Iterable[Caller], ae_title: str) -> bool:
    """Whether one of ``callers`` has this title, wherever it sends from."""
    return any(one.ae_title.strip() == ae_title.strip() for one in callers)


def _sends_from(caller: Caller, address: str) -> bool:
    return caller.host is None or _plain(address) in _addresses(caller.host)


def _addresses(host: str) -> set[str]:
    """Of a name, all that it has now: nobody restarts a listener for a new address."""
    try:
        return {_plain(str(found[4][0])) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _plain(address: str) -> str:
    """An IPv4 address that comes as IPv6 is the same."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)
