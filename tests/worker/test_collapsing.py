"""`collapse_key`, from XADD to the sink."""

from __future__ import annotations

from crew import crew

from streamq.queue.connection import command


async def test_three_warnings_are_one_mail_the_last(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        for percent in (70, 80, 90):
            await c.add(subject=f"{percent} % used", collapse_key="quota", collapse_seconds="2", id=f"q{percent}")
        await c.add(subject="70 % used", collapse_key="quota", collapse_seconds="2", to="eve@example.net")
        await c.add(subject="60 % used", collapse_key="quota", collapse_seconds="2", to="Bob@example.net")
        await c.until("email.relayed", many=3)
        subjects = sorted((mail.envelope_to[0], mail.content.split(b"Subject: ")[1][:4]) for mail in c.sink.received)
        assert await c.count("total:superseded") == 2
        assert await command(c.spool.redis, "EXISTS", c.spool.keys.collapse) == 0
    assert subjects == [("Bob@example.net", b"60 %"), ("bob@example.net", b"90 %"), ("eve@example.net", b"70 %")]


async def test_each_recipient_of_several_has_a_wait_of_its_own(server_url: str) -> None:
    async with crew(server_url) as c:
        await c.worker()
        await c.add(to="a@x.example, b@x.example", subject="one", collapse_key="k", collapse_seconds="2")
        await c.add(to="b@x.example, c@x.example", subject="two", collapse_key="k", collapse_seconds="2")
        await c.until("email.relayed", many=3)
        found = {mail.envelope_to[0]: b"Subject: two" in mail.content for mail in c.sink.received}
        assert await command(c.spool.redis, "EXISTS", c.spool.keys.bodies, c.spool.keys.collapse) == 0
    assert found == {"a@x.example": False, "b@x.example": True, "c@x.example": True}
