"""Open the relay's ports in the host's firewall, for some networks and nobody else.

The roles run it with `python3 -I -c`; a JSON object on standard input asks:

    networks   in CIDR notation; none: what was made here before goes away, and all else stays
    ports      TCP ports of the relay
    label      type that SELinux gives the ports, or an empty string
    check      True: change nothing, say what would be changed

One on standard output answers: `firewall` (firewalld, ufw, nftables, or none), `changes`, and
`said`, what the operator has to know. It is on the host as well, for nftables.service to run it
with --restore PORTS NETWORKS.

firewalld: a policy of our own, from any zone to this host, before all zones. It has the networks
accepted and everybody else dropped at these ports, whatever the zones say.

ufw: rules at the end of its own, where `ufw status` shows them with our name: the networks are
allowed and, after them, everybody else is denied. What the admin allows or denies before stays so.
The file PROFILE tells what the ports are, and that there are rules of ours.

nftables: an accept in one chain overrides no drop in another, so two things are needed. A table of
our own drops what does not come from the networks. In chains of others at the input hook that let
nothing through unless they say so, a rule with our comment lets the networks through: at the end,
so that all that they drop before stays dropped. Their files are not touched: a rule there that
names a chain would have the whole file refused once the chain is renamed. Instead a drop-in has
nftables.service run this again whenever it has loaded its file, which flushes everything.
"""

import contextlib
import hashlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

NAME = "fedmsg-relay"
TABLE = "fedmsg_relay"
# Not by a name that Python could import: its path has this directory, and firewalld is a package of
# the name `firewall`.
PROGRAM = "/usr/local/lib/fedmsg-relay/restore-firewall.py"
DROP_IN = "/etc/systemd/system/nftables.service.d/fedmsg-relay.conf"

PROFILE = "/etc/ufw/applications.d/fedmsg-relay"
# iptables takes so many ports in one rule.
MOST_PORTS = 15

# Exit status of firewall-cmd.
NOT_RUNNING = 252
# In the order that firewalld looks at them; both come before rules without a priority.
ACCEPTED, DROPPED = -20, -10


class Wanted(NamedTuple):
    """Networks, in order and each once, and ports; without networks nothing is wanted."""

    networks: tuple[str, ...]
    ports: tuple[int, ...]

    @classmethod
    def of(cls, networks: list[str], ports: list[int]) -> "Wanted":
        plain = sorted({str(ipaddress.ip_network(text)) for text in networks})
        return cls(tuple(plain), tuple(sorted(set(ports))) if plain else ())

    def of_version(self, version: int) -> list[str]:
        return [n for n in self.networks if ipaddress.ip_network(n).version == version]


NOTHING = Wanted((), ())


def main() -> int:
    if sys.argv[1:2] == ["--restore"]:
        ports, networks = (argument.split(",") for argument in sys.argv[2:4])
        script = nftables_script(ruleset(), Wanted.of(networks, [int(port) for port in ports]))
        run(["nft", "-f", "-"], script)
        return 0
    request = json.load(sys.stdin)
    wanted = Wanted.of(request["networks"], request["ports"])
    try:
        json.dump(apply(wanted, request["ports"], request["label"], request["check"]), sys.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or error.stdout.strip()
        print(f"{' '.join(error.cmd)}: {said}", file=sys.stderr)
        return 1
    return 0


def apply(wanted: Wanted, ports: list[int], label: str, check: bool) -> dict[str, Any]:
    kind = firewall()
    changes, said = [], []
    if kind == "firewalld":
        changes += firewalld(wanted, check)
    if shutil.which("ufw"):
        changes += ufw(wanted if kind == "ufw" else NOTHING, check)
    if shutil.which("nft"):
        changes += nftables(wanted if kind == "nftables" else NOTHING, check)
    if not wanted.networks:
        said.append("no networks are named: the firewall is left alone")
    elif kind == "none":
        said.append(unmanaged(wanted))
    elif kind == "ufw" and wanted.of_version(6) and not ufw_has_ipv6():
        said.append(f"ufw blocks IPv6 (IPV6=no), and so {', '.join(wanted.of_version(6))}")
    elif kind == "nftables":
        said += foreign(ruleset())
    labels, more = labelled(ports, label, check)
    return {"firewall": kind, "changes": changes + labels, "said": said + more}


def firewall() -> str:
    if shutil.which("firewall-cmd"):
        # One that is broken may be in force nevertheless: only one that does not run is none.
        asked = subprocess.run(["firewall-cmd", "--state"], capture_output=True, text=True)
        if asked.returncode != NOT_RUNNING:
            asked.check_returncode()
            return "firewalld"
    if shutil.which("ufw") and "Status: active" in run(["ufw", "status"], LANG="C"):
        return "ufw"
    service = "nftables.service"
    if shutil.which("nft") and (
        succeeds(["systemctl", "--quiet", "is-active", service])
        or succeeds(["systemctl", "--quiet", "is-enabled", service])
    ):
        return "nftables"
    return "none"


def unmanaged(wanted: Wanted) -> str:
    """What is to be said where none of the firewalls that we know is in force."""
    found = [
        f"the chain {chain['family']} {chain['table']} {chain['name']}"
        for chain in (
            each["chain"] for each in (ruleset() if shutil.which("nft") else ()) if "chain" in each
        )
        if chain.get("hook") == "input" and chain["table"] != TABLE
    ]
    for names in ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"):
        if "filter" in read(names).split() and not found:
            found.append("rules of iptables")
    if not found:
        return (
            "no firewall: neither firewalld nor ufw nor nftables.service runs here, so every host"
            " can connect, and only the relay itself refuses those that it must"
        )
    ports = ",".join(map(str, wanted.ports))
    commands = [
        f"{program} -I INPUT -p tcp -m multiport --dports {ports} -s {network} -j ACCEPT"
        for program, version in (("iptables", 4), ("ip6tables", 6))
        for network in wanted.of_version(version)
    ]
    return (
        f"{' and '.join(found)} may drop what comes to the relay, and neither firewalld nor ufw"
        " nor nftables.service runs here: see that it lets these networks through:"
        f" {'; '.join(commands)}"
    )


# ufw.


def ufw(wanted: Wanted, check: bool) -> list[str]:
    found = ufw_rules()
    rules = wanted_of_ufw(wanted)
    denied = [rule for rule in rules if rule.startswith("deny")]
    # A network that is allowed behind what denies is not allowed.
    of_ipv4 = [rule for rule in found if ":" not in rule]
    at_end = of_ipv4[len(of_ipv4) - len(denied) :]
    changes = []
    if set(found) != set(rules) or set(at_end) != set(denied):
        behind = [rule for rule in rules if rule in denied or rule not in found]
        gone = [rule for rule in found if rule in behind or rule not in rules]
        changes += [f"ufw: delete {rule}" for rule in gone if rule not in rules]
        changes += [f"ufw: {rule}" for rule in rules if rule not in found] or [
            "ufw: order of rules"
        ]
        for rule in () if check else gone:
            run(["ufw", "delete", *rule.split()])
        for rule in () if check else behind:
            run(["ufw", *rule.split(), "comment", NAME])
    if read(PROFILE) != profile(wanted):
        changes.append(f"ufw: {PROFILE}{'' if wanted.networks else ' removed'}")
        if not check and wanted.networks:
            write(PROFILE, profile(wanted))
        elif not check:
            os.unlink(PROFILE)
    return changes


def ufw_rules() -> list[str]:
    """The rules with our comment, as ufw itself says them; those of IPv4 are first."""
    ends = f" comment '{NAME}'"
    added = run(["ufw", "show", "added"], LANG="C").splitlines()
    return [line[len("ufw ") : -len(ends)] for line in added if line.endswith(ends)]


def wanted_of_ufw(wanted: Wanted) -> list[str]:
    """As ufw itself says them, a single address without its length."""
    ports = [str(port) for port in wanted.ports]
    groups = [",".join(ports[n : n + MOST_PORTS]) for n in range(0, len(ports), MOST_PORTS)]
    networks = wanted.of_version(4) + (wanted.of_version(6) if ufw_has_ipv6() else [])
    sources = [ipaddress.ip_network(network) for network in networks]
    allowed = [
        f"allow from {source.network_address if source.num_addresses == 1 else source}"
        f" to any port {group} proto tcp"
        for group in groups
        for source in sources
    ]
    return [*allowed, *(f"deny {group}/tcp" for group in groups)]


def ufw_has_ipv6() -> bool:
    lines = read("/etc/default/ufw").replace('"', "").splitlines()
    return "IPV6=no" not in [line.strip() for line in lines]


def profile(wanted: Wanted) -> str:
    if not wanted.networks:
        return ""
    ports = ",".join(map(str, wanted.ports))
    return (
        "# Written by the role fedmsg_relay.\n"
        f"[{NAME}]\ntitle=fedmsg relay\ndescription=Relay of the fedmsg bus\nports={ports}/tcp\n"
    )


# firewalld.


def firewalld(wanted: Wanted, check: bool) -> list[str]:
    rules = rich_rules(wanted)
    permanent, now = policy("--permanent"), policy()
    if not rules:
        if permanent is None and now is None:
            return []
        if not check:
            if permanent is not None:
                firewall_cmd("--permanent", f"--delete-policy={NAME}")
            firewall_cmd("--reload")
        return [f"firewalld: policy {NAME} removed"]
    changes = []
    if permanent is None:
        changes.append(f"firewalld: policy {NAME}")
        if not check:
            firewall_cmd("--permanent", f"--new-policy={NAME}")
            ours = ["--permanent", f"--policy={NAME}"]
            firewall_cmd(*ours, "--add-ingress-zone=ANY")
            firewall_cmd(*ours, "--add-egress-zone=HOST")
    for where, found in (["--permanent"], permanent), ([], now):
        if found is None and not where:
            continue  # a policy comes into being with a reload, and its rules with it
        for action, of in (("add", rules - (found or set())), ("remove", (found or set()) - rules)):
            changes += [f"firewalld: {action} {rule}" for rule in of]
            if of and not check:
                # All by one command: each takes half a second.
                options = [f"--{action}-rich-rule={rule}" for rule in sorted(of)]
                firewall_cmd(*where, f"--policy={NAME}", *options)
    if now is None and not check:
        firewall_cmd("--reload")
    return sorted(set(changes))


def rich_rules(wanted: Wanted) -> set[str]:
    """As firewalld itself writes them."""
    found = set()
    for port in wanted.ports:
        at = f'port port="{port}" protocol="tcp"'
        for version in (4, 6):
            for network in wanted.of_version(version):
                source = f'family="ipv{version}" source address="{network}"'
                found.add(f'rule priority="{ACCEPTED}" {source} {at} accept')
        found.add(f'rule priority="{DROPPED}" {at} drop')
    return found


def policy(*where: str) -> "set[str] | None":
    """The rich rules of our policy, or None if there is none."""
    if NAME not in firewall_cmd(*where, "--get-policies").split():
        return None
    listed = firewall_cmd(*where, f"--policy={NAME}", "--list-rich-rules")
    return {line.strip() for line in listed.splitlines() if line.strip()}


def firewall_cmd(*arguments: str) -> str:
    return run(["firewall-cmd", *arguments])


# nftables.


def nftables(wanted: Wanted, check: bool) -> list[str]:
    changes = []
    found = ruleset()
    if comments(found) != expected(found, wanted):
        what = f"for {', '.join(wanted.networks)} alone" if wanted.networks else "rules removed"
        changes.append(f"nftables: {what}")
        if not check:
            run(["nft", "-f", "-"], nftables_script(found, wanted))
    if read(DROP_IN) != drop_in(wanted):
        changes.append(f"nftables: {DROP_IN}{'' if wanted.networks else ' removed'}")
        if not check:
            write(DROP_IN, drop_in(wanted))
            run(["systemctl", "daemon-reload"])
    return changes


def ruleset() -> list[dict[str, Any]]:
    return list(json.loads(run(["nft", "--json", "list", "ruleset"]))["nftables"])


def comment(wanted: Wanted) -> str:
    """Of every rule of ours: another one where something else is wanted."""
    return f"{NAME} {hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}"


def comments(found: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Family, table, chain and comment of each rule of ours that is there."""
    rules = (each["rule"] for each in found if "rule" in each)
    return sorted(
        (rule["family"], rule["table"], rule["chain"], rule["comment"])
        for rule in rules
        if rule.get("comment", "").startswith(f"{NAME} ")
    )


def expected(found: list[dict[str, Any]], wanted: Wanted) -> list[tuple[str, str, str, str]]:
    if not wanted.networks:
        return []
    own = [("inet", TABLE, "input")] * len(own_rules(wanted))
    others = [
        (chain["family"], chain["table"], chain["name"])
        for chain in closed_chains(found)
        for _ in openings(chain["family"], wanted)
    ]
    return sorted((*where, comment(wanted)) for where in own + others)


def closed_chains(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Chains of others at the input hook that drop what they do not name, at their end.

    `before`: the handle of the rule that does it; without, it is the chain's policy. Not those of
    iptables, firewalld and the like, which keep their own account of what is in them.
    """
    closed = []
    for chain in (each["chain"] for each in found if "chain" in each):
        if chain.get("hook") != "input" or chain.get("type") != "filter" or is_managed(chain):
            continue
        rules = [
            each["rule"]
            for each in found
            if "rule" in each
            and all(each["rule"][k] == chain[k] for k in ("family", "table"))
            and each["rule"]["chain"] == chain["name"]
            and not each["rule"].get("comment", "").startswith(f"{NAME} ")
        ]
        last = rules[-1] if rules and drops_everything(rules[-1]) else None
        if last is not None or chain.get("policy") == "drop":
            closed.append({**chain, "before": last["handle"] if last is not None else None})
    return closed


def drops_everything(rule: dict[str, Any]) -> bool:
    kinds = {kind for statement in rule.get("expr", []) for kind in statement}
    return bool(kinds & {"drop", "reject"}) and kinds <= {"drop", "reject", "counter", "log"}


def is_managed(chain: dict[str, Any]) -> bool:
    return chain["name"] == "INPUT" or chain["table"] in (TABLE, "firewalld")


def foreign(found: list[dict[str, Any]]) -> list[str]:
    """What is to be said of chains that may drop, and that we keep our hands off."""
    return [
        f"the chain {chain['family']} {chain['table']} {chain['name']} is managed by another"
        " program: see that it lets these networks through"
        for chain in (each["chain"] for each in found if "chain" in each)
        if chain.get("hook") == "input" and is_managed(chain) and chain["table"] != TABLE
    ]


def openings(family: str, wanted: Wanted) -> list[str]:
    """What lets the networks through in a chain of this family."""
    found = []
    for version, word in ((4, "ip"), (6, "ip6")):
        networks = wanted.of_version(version)
        if networks and family in ("inet", word):
            source = f"{word} saddr {{ {', '.join(networks)} }}"
            found.append(f"{source} tcp dport {ports_of(wanted)} accept {quoted(wanted)}")
    return found


def own_rules(wanted: Wanted) -> list[str]:
    return [
        f'iifname "lo" accept {quoted(wanted)}',  # this host itself
        *openings("inet", wanted),
        f"tcp dport {ports_of(wanted)} counter drop {quoted(wanted)}",
    ]


def ports_of(wanted: Wanted) -> str:
    return f"{{ {', '.join(map(str, wanted.ports))} }}"


def quoted(wanted: Wanted) -> str:
    return f'comment "{comment(wanted)}"'


def nftables_script(found: list[dict[str, Any]], wanted: Wanted) -> str:
    """One transaction: either all of it is there afterwards, or nothing has changed."""
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}"]
    for rule in (each["rule"] for each in found if "rule" in each):
        if rule.get("comment", "").startswith(f"{NAME} ") and rule["table"] != TABLE:
            where = f"{rule['family']} {rule['table']} {rule['chain']}"
            lines.append(f"delete rule {where} handle {rule['handle']}")
    if wanted.networks:
        lines += [
            f"add table inet {TABLE}",
            f"add chain inet {TABLE} input"
            " { type filter hook input priority filter - 5; policy accept; }",
        ]
        lines += [f"add rule inet {TABLE} input {rule}" for rule in own_rules(wanted)]
        for chain in closed_chains(found):
            where = f"{chain['family']} {chain['table']} {chain['name']}"
            verb = "add rule" if chain["before"] is None else "insert rule"
            at = "" if chain["before"] is None else f" handle {chain['before']}"
            lines += [f"{verb} {where}{at} {rule}" for rule in openings(chain["family"], wanted)]
    return "\n".join(lines) + "\n"


def drop_in(wanted: Wanted) -> str:
    if not wanted.networks:
        return ""
    ports, networks = ",".join(map(str, wanted.ports)), ",".join(wanted.networks)
    command = f"-/usr/bin/python3 -I {PROGRAM} --restore {ports} {networks}"
    return (
        "# Written by the role fedmsg_relay. What nftables.service loads flushes our rules.\n"
        f"[Unit]\nRequiresMountsFor={os.path.dirname(PROGRAM)}\n\n"
        f"[Service]\nExecStartPost={command}\nExecReload={command}\n"
    )


# SELinux.


def labelled(ports: list[int], label: str, check: bool) -> tuple[list[str], list[str]]:
    """Changes, and what is to be said, of labels on ports."""
    if not label or not shutil.which("selinuxenabled") or not succeeds(["selinuxenabled"]):
        return [], []
    changes, said = [], []
    if not shutil.which("semanage"):
        if check:
            return [f"SELinux: label {port} {label}" for port in ports], []
        return [], ["SELinux: there is no semanage, so ports are not labelled"]
    known = port_types(run(["semanage", "port", "--list", "--noheading"]))
    for port in sorted(set(ports)):
        if port not in known:
            changes.append(f"SELinux: label {port} {label}")
            if not check:
                run(["semanage", "port", "--add", "--type", label, "--proto", "tcp", str(port)])
        elif known[port] != label:
            said.append(f"SELinux: port {port} is labelled {known[port]}, which is left as it is")
    return changes, said


def port_types(listed: str) -> dict[int, str]:
    """Types of single TCP ports; ranges are of use to nobody here, they are the reserved ones."""
    found = {}
    for line in listed.splitlines():
        kind, protocol, numbers = line.split(None, 2)
        if protocol == "tcp":
            singles = (number.strip() for number in numbers.split(","))
            found.update({int(number): kind for number in singles if number.isdigit()})
    return found


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def run(command: list[str], text: str = "", **environment: str) -> str:
    """What a command prints. Raises CalledProcessError."""
    env = {**os.environ, **environment}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, env=env)
    return done.stdout


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""


def write(path: str, content: str) -> None:
    if not content:
        os.unlink(path)
        with contextlib.suppress(OSError):  # somebody else's are there as well
            os.rmdir(os.path.dirname(path))
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), 0o644)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    sys.exit(main())
