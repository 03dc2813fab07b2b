"""The status page as a browser shows it: it fits, refreshes, and runs nothing that was sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support.chromium import Browser

from ..conftest import Bus, Submitter, numbered, wait_for
from .test_status_page import is_answered

RELAYED = "document.querySelector('main').innerText.match(/Relayed since the start\\s*(\\d+)/)[1]"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
ADD_SCRIPT = """(() => { const each = document.createElement('script');
each.textContent = 'window.ran = true'; document.body.append(each);
return window.ran === true })()"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


def test_the_page_fits_and_refreshes_and_runs_nothing_else(
    bus: Bus, browser: Browser, context: zmq.Context[Any]
) -> None:
    bus.with_journal(http=True)
    bus.relay()
    wait_for(lambda: is_answered(bus))
    client = Submitter(context, bus.submit)
    hostile = b"<script>document.title='sent'</script>" + b"t" * 300
    assert client.submit(hostile, numbered(1)[1])["ok"]
    browser.call("Page.navigate", url=f"http://{bus.http}/")
    wait_for(lambda: browser.value(f"!!document.querySelector('main dl') && {RELAYED}") == "1")
    for width in (320, 390, 768, 1600):
        backgrounds = set()
        for scheme in ("light", "dark"):
            browser.show(width, scheme)
            assert browser.value(OVERFLOW) <= 0, (width, scheme)
            backgrounds.add(browser.value("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2
    assert browser.value(ADD_SCRIPT) is False
    assert client.submit(*numbered(2))["ok"]
    wait_for(lambda: browser.value(RELAYED) == "2")  # nobody has loaded it again
    assert browser.value("document.title") == "relay: healthy"
