"""The status page: one HTML document with all that it needs, made anew for each request.

Strangers may send what is shown, and may reach the page. So every text goes through `shown`, which
bounds it and leaves neither markup nor characters that cannot be seen. POLICY lets a browser run
the script and apply the style of this module, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .. import __version__
from ..escapes import escaped
from . import health
from .health import Feed

CONTENT_TYPE = "text/html; charset=utf-8"

# Messages and listeners that are shown, and characters of a text.
MOST_MESSAGES = 50
MOST_LISTENERS = 50
LONGEST = 200
# Bytes of a body that is read for its sender: of 50 larger ones the page would take seconds.
LARGEST_READ = 1 << 16

# What a line of /health begins with or contains, and the section of the SOP that is about it.
SECTIONS = (
    (re.compile(r"^the relay has said nothing"), "relay-hung"),
    (re.compile(r"^the journal|^the backlog cannot"), "disk-full-journal"),
    (re.compile(r"^the log cannot"), "disk-full-log"),
    (re.compile(r"^descriptors run out|^the memory is at"), "hostile-peer"),
    (re.compile(r"^publisher .* was cut off"), "hostile-peer"),
    (re.compile(r"^listener .* was too slow"), "slow-listener"),
    (re.compile(r"^relay_policy does not let"), "access"),
    (re.compile(r"is not in relay_allow"), "hostile-peer"),
    (re.compile(r"^publishers of .* connected|^a flood"), "flood"),
    (re.compile(r"^(dropped|repaired) in the last"), "poison-message"),
    (re.compile(r"^this host's clock"), "clock-skew"),
    (re.compile(r"^the backlog is full"), "flood"),
)  # fmt: skip

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d0d7de;--good:#116329;
--bad:#a40e26;--warn:#7a4b00;--link:#0550ae}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--soft:#9da7b3;--line:#30363d;
--good:#56d364;--bad:#ff938a;--warn:#e3b341;--link:#79c0ff}}
body{margin:0 auto;max-width:75rem;padding:1rem;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:1.5rem 0 .5rem}a{color:var(--link)}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}.soft{color:var(--soft)}
ul{padding-left:1.25rem;margin:.25rem 0}
dl{display:grid;
grid-template-columns:repeat(auto-fill,minmax(min(100%,16rem),1fr));gap:.75rem;margin:0}
dt{color:var(--soft)}dd{margin:0;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;
padding:.25rem .5rem;border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:600}
@media(max-width:40rem){thead{position:absolute;
clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
tr,td{display:block;border:0;padding:0}tr{padding:.4rem 0;border-bottom:1px solid var(--line)}}
"""

# The page is fetched anew and its main part replaced; no text of it is ever taken for markup that
# this server has not written. Where that fails, the page says since when it is not new.
SCRIPT = """
(()=>{let seen=Date.now();const again=async()=>{try{
const answer=await fetch(location.pathname,{cache:"no-store"});
if(!answer.ok)throw new Error(answer.status);
const page=new DOMParser().parseFromString(await answer.text(),"text/html");
const main=page.querySelector("main");if(!main)throw new Error("no page");
const here=document.activeElement,href=here&&here.getAttribute("href");
document.querySelector("main").replaceWith(document.adoptNode(main));document.title=page.title;
if(href)for(const each of document.querySelectorAll("main a"))
if(each.getAttribute("href")===href){each.focus({preventScroll:true});break}
seen=Date.now();document.getElementById("age").textContent="Refreshed every 5 s.";
}catch(error){document.getElementById("age").textContent=
"Not refreshed for "+Math.round((Date.now()-seen)/1000)+" s: the relay's page does not answer."}
setTimeout(again,5000)};
document.getElementById("age").textContent="Refreshed every 5 s.";setTimeout(again,5000)})()
"""


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)};"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Headers of the page beside its type.
HEADERS = {
    "Content_Security_Policy": POLICY,
    "X_Content_Type_Options": "nosniff",
    "Referrer_Policy": "no-referrer",
}


class Passed(NamedTuple):
    """A message of the journal: when it was received, in Unix time; topic, and who sent it."""

    received: float
    topic: str
    sender: str


def render(
    feed: Feed, backlog_error: str | None, messages: list[Passed], sop: str | None = None
) -> bytes:
    """The page, in UTF-8. `messages` are the newest, newest first; `sop` is the SOP's address."""
    problems, warnings = health.problems(feed, backlog_error), health.warnings(feed)
    title = "relay: healthy" if not problems else f"relay: {len(problems)} problems"
    if len(problems) == 1:
        title = "relay: 1 problem"
    main = [
        *_wrong("What is wrong", "bad", problems, sop),
        *_wrong("What is worth knowing", "warn", warnings, sop),
        *_facts(feed),
        *_listeners(feed),
        *_messages(messages),
    ]
    kind, word = ("bad", "not healthy") if problems else ("good", "healthy")
    lines = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>",
        f'<h1>fedmsg-relay is <span class="{kind}">{word}</span></h1>',
        f'<p class="soft">As of <time>{_moment(time.time())}</time>.</p>',
        *main,
        "</main><footer>",
        '<p class="soft"><span id="age">Load the page again to see what is new.</span>',
        f" fedmsg-relay {__version__}.",
        ' Also here: <a href="/health">health</a>, <a href="/metrics">metrics</a>,',
        ' <a href="/raw?rows_per_page=10">backlog</a>.</p>',
        f"</footer><script>{SCRIPT}</script></body></html>",
    ]
    return "\n".join(lines).encode()


def sender(body: bytes) -> str:
    """The name of who has sent a message, by its body; empty if that does not say."""
    if len(body) > LARGEST_READ:
        return ""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    name = found.get("username") if isinstance(found, dict) else None
    return name if isinstance(name, str) else ""


def shown(text: object) -> str:
    r"""The text as HTML shows it: at most LONGEST characters, what cannot be seen as `\u202e`.

    Characters that turn the direction of a line, or are no character at all, count among these.
    """
    whole = str(text)
    cut = whole[:LONGEST] + ("…" if len(whole) > LONGEST else "")
    return html.escape(escaped(cut))


def section(line: str) -> str | None:
    """The id of the SOP's section about a line of /health; None if there is none."""
    return next((name for pattern, name in SECTIONS if pattern.search(line)), None)


def _wrong(heading: str, kind: str, lines: list[str], sop: str | None) -> Iterator[str]:
    if not lines:
        return
    yield f"<h2>{heading}</h2><ul>"
    for line in lines:
        about, link = section(line), ""
        if about is not None and sop:
            link = f' <a href="{html.escape(sop)}#{about}">SOP: {about}</a>'
        elif about is not None:
            link = f' <span class="soft">SOP: {about}</span>'
        yield f'<li><span class="{kind}">{shown(line)}</span>{link}</li>'
    yield "</ul>"


def _facts(feed: Feed) -> Iterator[str]:
    state = feed.state
    if not state:
        return
    recent, journal = feed.recent(), health.part(state, "journal")
    counts, senders = health.part(state, "counts"), health.part(state, "senders")
    rate = recent.messages / recent.seconds if recent.seconds else 0.0
    dropped = sum(_number(each) for each in health.part(counts, "dropped").values())
    repaired = sum(_number(each) for each in health.part(counts, "repaired").values())
    facts = [
        ("Running since", _moment(_number(state.get("started")))),
        ("Messages a second", f"{rate:.1f}"),
        ("Relayed since the start", f"{_number(counts.get('untouched')) + repaired:.0f}"),
        ("Dropped, repaired", f"{dropped:.0f}, {repaired:.0f}"),
        ("Listeners", f"{_number(state.get('listeners')):.0f}"),
        ("Missed by slow listeners", f"{_number(state.get('missed')):.0f}"),
        ("Held for listeners", f"{_number(state.get('held')):.0f}"),
        ("Journal", shown(journal.get("state", "none"))),
        ("Waiting for the journal", f"{_number(journal.get('waiting')):.0f}"),
        ("Written to the journal", f"{_number(journal.get('written')):.0f}"),
        ("Memory", f"{_number(senders.get('memory')) / (1 << 20):.0f} MiB"),
    ]  # fmt: skip
    yield "<h2>The relay</h2><dl>"
    for name, value in facts:
        yield f"<div><dt>{name}</dt><dd>{value}</dd></div>"
    yield "</dl>"


def _listeners(feed: Feed) -> Iterator[str]:
    told = feed.state.get("listener_addresses")
    addresses = told if isinstance(told, list) else []
    if not addresses:
        return
    slow = {str(each.get("address")): each for each in health.slow_listeners(feed.state)}
    # Those that miss something first: they are what somebody looks for.
    addresses = sorted(map(str, addresses), key=lambda each: each not in slow)
    rows = []
    for address in addresses[:MOST_LISTENERS]:
        lag = slow.get(address)
        missed = "nothing missed"
        if lag is not None:
            about = "" if lag.get("exact") else "up to "
            since = _moment(_number(lag.get("since")))
            number = f"{about}{_number(lag.get('missed')):.0f}"
            missed = f'<span class="warn">{number} missed since {since}</span>'
        rows.append((shown(address), missed))
    yield "<h2>Listeners</h2>"
    yield from _table(("Address", "Lag"), rows)
    if len(addresses) > MOST_LISTENERS:
        yield f'<p class="soft">and {len(addresses) - MOST_LISTENERS} more.</p>'


def _messages(messages: list[Passed]) -> Iterator[str]:
    if not messages:
        return
    yield "<h2>The last messages</h2>"
    rows = [
        (_moment(each.received), shown(each.topic), shown(each.sender) or "no name")
        for each in messages[:MOST_MESSAGES]
    ]
    yield from _table(("Received", "Topic", "Sender"), rows)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "<table><thead><tr>"
    yield "".join(f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</tbody></table>"


def _moment(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
    except (ValueError, OverflowError, OSError):
        return "?"


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0.0
