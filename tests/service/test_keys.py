"""Keys that a site brings along."""

import pytest

from model.errors import ConfigError
from service import wiring
from service.settings import Settings

KEY = "aqcf_0123abcd_" + "s3cret-" * 6


def test_a_key_of_the_settings_is_known_from_the_start_and_stays_revoked(
    settings: Settings,
) -> None:
    settings = settings.model_copy(update={"admin_key": f"{KEY}\n"})
    for revoke in (True, False):
        container = wiring.build(settings)
        key = container.keys.verify(KEY)
        assert (key is not None) is revoke
        if key is not None:
            assert key.scopes == {"admin"}
            container.keys.revoke(key.id)
        container.database.close()


@pytest.mark.parametrize("text", ["secret", "aqcf_0123abcd_short", KEY.replace("0123", "XYZW")])
def test_a_weak_key_stops_the_start(settings: Settings, text: str) -> None:
    with pytest.raises(ConfigError, match="32 or more"):
        wiring.build(settings.model_copy(update={"admin_key": text}))


def test_secrets_are_not_shown(settings: Settings) -> None:
    told = settings.model_copy(update={"admin_key": KEY, "database_url": "postgresql://u:pw@h/d"})
    assert "s3cret" not in repr(told)
    assert "pw@" not in repr(told)
