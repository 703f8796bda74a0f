"""The redis-cli line."""

from __future__ import annotations

import pytest

from streamq.errors import SettingsError
from streamq.server import redis_cli_line


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("unix:///run/redis.sock", "redis-cli -s /run/redis.sock"),
        ("unix:///run/redis.sock?db=0", "redis-cli -s /run/redis.sock"),
        ("unix:///a%20b/redis.sock?db=3", "redis-cli -s '/a b/redis.sock' -n 3"),
        ("redis://localhost", "redis-cli -h localhost -p 6379"),
        ("redis://10.0.0.5:6380/2", "redis-cli -h 10.0.0.5 -p 6380 -n 2"),
        ("redis://[::1]:6380/0", "redis-cli -h ::1 -p 6380"),
        ("redis://:s3cret@db.example", 'REDISCLI_AUTH="$PASSWORD" redis-cli -h db.example -p 6379'),
        (
            "rediss://app:s3cret@db.example/1?ssl_ca_certs=/etc/ca.pem",
            'REDISCLI_AUTH="$PASSWORD" redis-cli -h db.example -p 6379 --tls --cacert /etc/ca.pem --user app -n 1',
        ),
        ("rediss://db.example?ssl_cert_reqs=none", "redis-cli -h db.example -p 6379 --tls --insecure"),
        (
            "unix:///r.sock?password=s3cret&username=app",
            'REDISCLI_AUTH="$PASSWORD" redis-cli -s /r.sock --user app',
        ),
        ("redis://;reboot@h", "redis-cli -h h -p 6379 --user ';reboot'"),
    ],
)
def test_redis_cli_line(url: str, line: str) -> None:
    assert redis_cli_line(url) == line


@pytest.mark.parametrize("url", ["http://user:s3cret@x", "redis://:s3cret@x:port", "redis://[::1", ""])
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        redis_cli_line(url)
    assert "s3cret" not in str(refused.value)
