#!/usr/bin/env python3
"""Compares Rookery with Postfix and Dovecot on this machine, under the same load.

    cargo build --release -p rookery
    sudo ops/bench/compare.py                     # all parts but `select`
    sudo ops/bench/compare.py --quick             # does it work at all? Minutes; no figures
    sudo ops/bench/compare.py --parts select --select-messages 1000000

Needs root, as Postfix and Dovecot do. Installs both from the distribution (Debian, Ubuntu) where
they are missing, without starting them; what is installed and configured already is left alone.
All servers run from one temporary folder, on loopback and free ports, with configurations of their
own, and are stopped by their process ids at the end, on an error and on Ctrl-C alike.

Every server writes as durably as it ships: Postfix and Dovecot with their own fsync settings
(`mail_fsync = optimized`), Rookery with its default. Nothing is tuned but what would forbid the load
at all: limits of connections. Dovecot keeps mail in Maildir, the most widely deployed format
(`--dovecot-mail` takes another); Debian's own default, mbox, is left out, as hardly anyone serves
IMAP from it.

Parts (--parts), the load coming from `rookery bench`:
  deliver  delivered messages a second, to one mailbox and to many: Postfix handing over to Dovecot by
           LMTP (until the last message is in its mailbox, not only in the queue), Dovecot's LMTP,
           Rookery's LMTP, Rookery's SMTP. Every leg starts on empty stores; their order turns
           from round to round.
  imap     FETCH, STORE, SEARCH, APPEND, SELECT on one mailbox; both servers run, one is asked.
  memory   Rookery's resident memory, idle, and a further idle clear-text IMAP session's.
  large    how much Rookery's memory grows with a 50 MB message in by LMTP and out by IMAP, on a
           server just started and once more.
  select   the first SELECT of a very large mailbox on a server just started; only with
           --select-messages N, as filling takes its time.

Prints a table for people, and writes everything as JSON to --json FILE. Medians of all rounds; a ratio
above 1 means that Rookery does more.
"""

import argparse
import concurrent.futures
import imaplib
import json
import os
import platform
import pwd
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

DOMAIN = "example.org"
PASSWORD = "compare-passphrase"
WARM = f"warm@{DOMAIN}"
PACKAGES = ["postfix", "dovecot-core", "dovecot-imapd", "dovecot-lmtpd"]
POLICY = Path("/usr/sbin/policy-rc.d")
START_SECONDS = 30
STOP_SECONDS = 40
LARGE_BYTES = 50_000_000


class Failed(Exception):
    """The comparison cannot go on."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- Processes -----------------------------------------------------------------------------------

RUNNING = []


class Server:
    """A process of ours; ended by its id."""

    def __init__(self, name, command, log, stdout=None):
        self.name = name
        self.log = log
        with open(log, "ab") as file:
            # A session of its own: Ctrl-C reaches us alone, and we end it in order.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout or file, stderr=file,
                start_new_session=True, cwd="/")
        RUNNING.append(self)

    @property
    def pid(self):
        return self.process.pid

    def wait_for(self, condition, what):
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: {what} took too long: {self.tail()}")
            time.sleep(0.02)

    def tail(self):
        return Path(self.log).read_text(errors="replace")[-2000:]

    def stop(self):
        if self in RUNNING:
            RUNNING.remove(self)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                say(f"{self.name} does not end; killing process {self.pid}")
                self.process.kill()
                self.process.wait()


def stop_all():
    for server in reversed(RUNNING[:]):
        server.stop()


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count, first=[20000]):
    """Below the ports that outgoing connections take."""
    ports = []
    while len(ports) < count:
        first[0] += 1
        if first[0] >= 32000:
            first[0] = 20001
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", first[0]))
                ports.append(first[0])
            except OSError:
                pass
    return ports


def memory(pid):
    """VmRSS and VmHWM in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = [re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM")]
    return [int(value.group(1)) * 1024 for value in values]


# --- Installing ----------------------------------------------------------------------------------

def install():
    missing = [name for name in PACKAGES if subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name],
        capture_output=True, text=True).stdout[:2] != "ii"]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    ours = not POLICY.exists()
    if ours:
        # Debian's own way to say that a package's services are not to be started.
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        run(["apt-get", "install", "-y", "--no-install-recommends", *missing],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    finally:
        if ours:
            POLICY.unlink()


# --- Servers -------------------------------------------------------------------------------------

class Dovecot:
    name = "dovecot"

    def __init__(self, folder, mail):
        self.folder = folder
        self.imap, self.lmtp = free_ports(2)
        folder.mkdir()
        nobody = pwd.getpwnam("nobody")
        self.mail = folder / "mail"
        self.mail.mkdir()
        os.chown(self.mail, nobody.pw_uid, nobody.pw_gid)
        self.config = folder / "dovecot.conf"
        self.config.write_text(f"""
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
mail_location = {mail}
first_valid_uid = 1
mail_max_userip_connections = 20000
namespace inbox {{
  inbox = yes
}}
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={nobody.pw_uid} gid={nobody.pw_gid} home={self.mail}/%u allow_all_users=yes
}}
service imap-login {{
  inet_listener imap {{
    port = {self.imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.lmtp}
  }}
}}
""")
        self.server = None

    def start(self):
        self.server = Server("dovecot", ["dovecot", "-F", "-c", self.config],
                             self.folder / "dovecot.out")
        self.server.wait_for(lambda: accepts(self.imap) and accepts(self.lmtp), "listening")

    def stop(self):
        self.server.stop()

    def count(self, users):
        """Messages in these users' mailboxes, asked over IMAP."""
        total = 0
        for user in users:
            with imaplib.IMAP4("127.0.0.1", self.imap) as imap:
                imap.login(user, PASSWORD)
                _, (status,) = imap.status("INBOX", "(MESSAGES)")
                total += int(re.search(rb"MESSAGES (\d+)", status).group(1))
        return total


class Postfix:
    """Takes SMTP and hands over to an LMTP server."""

    def __init__(self, folder, lmtp):
        self.folder = folder
        (self.smtp,) = free_ports(1)
        self.etc, self.spool, data = folder / "etc", folder / "spool", folder / "data"
        for each in (folder, self.etc, self.spool, data):
            each.mkdir()
        postfix = pwd.getpwnam("postfix")
        os.chown(data, postfix.pw_uid, postfix.pw_gid)
        self.daemons = run(["postconf", "-dh", "daemon_directory"]).strip()
        (self.etc / "main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {self.spool}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = {self.daemons}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.net
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
biff = no
virtual_mailbox_domains = {DOMAIN}
virtual_mailbox_maps = static:ok
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
message_size_limit = 52428800
mailbox_size_limit = 0
virtual_mailbox_limit = 0
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
""")
        # Debian's services, without its chroots, which this folder has no files for.
        (self.etc / "master.cf").write_text(f"""
127.0.0.1:{self.smtp} inet n - n - - smtpd
pickup     unix  n - n 60    1 pickup
cleanup    unix  n - n -     0 cleanup
qmgr       unix  n - n 300   1 qmgr
tlsmgr     unix  - - n 1000? 1 tlsmgr
rewrite    unix  - - n -     - trivial-rewrite
bounce     unix  - - n -     0 bounce
defer      unix  - - n -     0 bounce
trace      unix  - - n -     0 bounce
verify     unix  - - n -     1 verify
flush      unix  n - n 1000? 0 flush
proxymap   unix  - - n -     - proxymap
proxywrite unix  - - n -     1 proxymap
smtp       unix  - - n -     - smtp
relay      unix  - - n -     - smtp
showq      unix  n - n -     - showq
error      unix  - - n -     - error
retry      unix  - - n -     - error
discard    unix  - - n -     - discard
local      unix  - n n -     - local
virtual    unix  - n n -     - virtual
lmtp       unix  - - n -     - lmtp
anvil      unix  - - n -     1 anvil
scache     unix  - - n -     1 scache
postlog    unix-dgram n - n - 1 postlogd
""")
        self.server = None

    def start(self):
        # Makes the queue's folders. `postfix start` would leave a master that is no child of ours.
        run(["postfix", "-c", self.etc, "check"])
        self.server = Server("postfix", [f"{self.daemons}/master", "-c", self.etc],
                             self.folder / "postfix.out")
        pid = self.spool / "pid/master.pid"
        self.server.wait_for(lambda: accepts(self.smtp) and pid.exists(), "listening")
        if int(pid.read_text()) != self.server.pid:
            raise Failed(f"postfix runs as process {pid.read_text().strip()}, which is not ours")

    def stop(self):
        self.server.stop()

    def wait_until_empty(self, seconds):
        """Until the queue holds nothing: every message was taken by LMTP, or has failed."""
        deadline = time.monotonic() + seconds
        queues = [self.spool / name for name in ("maildrop", "incoming", "active", "deferred")]
        while any(holds_file(queue) for queue in queues):
            if time.monotonic() > deadline:
                raise Failed(f"postfix keeps messages: {self.tail()}")
            time.sleep(0.01)

    def tail(self):
        return (self.folder / "postfix.log").read_text(errors="replace")[-2000:]


def holds_file(folder):
    with os.scandir(folder) as entries:
        return any(not entry.is_dir() or holds_file(entry.path) for entry in entries)


class Rookery:
    name = "rookery"

    def __init__(self, binary, folder, template=None):
        self.binary = binary
        self.folder = folder
        folder.mkdir()
        self.data = folder / "data"
        if template:
            shutil.copytree(template, self.data)
        self.smtp, self.lmtp, self.imap, self.http = free_ports(4)
        certificate, key = folder / "cert.pem", folder / "key.pem"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate])
        self.config = folder / "rookery.toml"
        self.config.write_text(f"""
hostname = "mx.example.net"
data = "{self.data}"
[listen]
smtp = ["127.0.0.1:{self.smtp}"]
submission = []
submissions = []
lmtp = ["127.0.0.1:{self.lmtp}"]
imap = ["127.0.0.1:{self.imap}"]
imaps = []
http = ["127.0.0.1:{self.http}"]
[tls]
certificate = "{certificate}"
key = "{key}"
[limits]
connections_max = 20000
connections_per_address_max = 20000
""")
        self.server = None

    def start(self):
        self.server = Server("rookery", [self.binary, "serve", "--config", self.config],
                             self.folder / "rookery.log")
        self.server.wait_for(lambda: accepts(self.imap) and accepts(self.http), "listening")

    def stop(self):
        self.server.stop()

    def ask(self, method, path, body=None):
        token = (self.data / "admin-token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/admin/v1/{path}", method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def add_accounts(self, users):
        run([self.binary, "domain", "add", DOMAIN, "--config", self.config])
        # Hashing a password takes its time; two at once keep a small machine busy.
        add = lambda user: self.ask("POST", "accounts", {
            "address": user, "password": PASSWORD, "description": "", "quota_bytes": None})
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(add, users))

    def count(self, users):
        return sum(self.ask("GET", f"accounts/{user}")["emails"] for user in users)


# --- Load ----------------------------------------------------------------------------------------

class Comparison:
    def __init__(self, args, folder):
        self.args = args
        self.folder = folder
        self.legs = 0
        self.users = [f"u{n}@{DOMAIN}" for n in range(1, args.mailboxes + 1)]
        self.results = {}

    def bench(self, *arguments, check=True):
        command = [self.args.rookery, "bench", *map(str, arguments), "--json",
                   "--threads", str(self.args.threads), "--timeout", "600"]
        done = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "ROOKERY_BENCH_PASSWORD": PASSWORD})
        try:
            out, error = done.communicate()
        except BaseException:
            done.kill()
            done.wait()
            raise
        if check and done.returncode != 0:
            raise Failed(f"{' '.join(map(str, command))}: {out}{error}")
        return json.loads(out)

    def fresh(self, name):
        self.legs += 1
        return self.folder / f"{self.legs}-{name}"

    def prepare(self):
        """A store with all accounts, to be copied for every leg."""
        say(f"making {len(self.users) + 1} accounts")
        rookery = Rookery(self.args.rookery, self.fresh("template"))
        rookery.start()
        rookery.add_accounts([*self.users, WARM])
        rookery.stop()
        self.template = rookery.data
        for name in ("admin-url",):
            (self.template / name).unlink(missing_ok=True)

    def rookery(self):
        return Rookery(self.args.rookery, self.fresh("rookery"), self.template)

    def dovecot(self):
        return Dovecot(self.fresh("dovecot"), self.args.dovecot_mail)

    def send(self, protocol, port, to, recipients, count, size=None, connections=None):
        return self.bench(protocol, "--port", port, "--to", to, "--recipients", recipients,
                          "--count", count, "--size", size or self.args.size,
                          "--connections", connections or self.args.connections)

    # (a) ---

    def deliver(self):
        legs = [("postfix+dovecot", self.leg_postfix), ("dovecot-lmtp", self.leg_dovecot),
                ("rookery-lmtp", lambda n: self.leg_rookery("lmtp", n)),
                ("rookery-smtp", lambda n: self.leg_rookery("smtp", n))]
        found = self.results["deliver"] = {}
        for mailboxes in (1, self.args.mailboxes):
            cell = found[f"{mailboxes} mailboxes"] = {name: [] for name, _ in legs}
            for number in range(self.args.rounds):
                for at in range(len(legs)):
                    name, leg = legs[(at + number) % len(legs)]
                    result = leg(mailboxes)
                    cell[name].append(result)
                    say(f"deliver, {mailboxes} mailboxes, round {number + 1}, {name}: "
                        f"{result['per_second']:.0f}/s")

    def leg_postfix(self, mailboxes):
        dovecot = self.dovecot()
        dovecot.start()
        postfix = Postfix(self.fresh("postfix"), dovecot.lmtp)
        postfix.start()
        warm = max(self.args.messages // 20, 10)
        self.send("smtp", postfix.smtp, WARM, 1, warm)
        postfix.wait_until_empty(600)
        report = self.send("smtp", postfix.smtp, f"u{{n}}@{DOMAIN}", mailboxes,
                           self.args.messages)
        postfix.wait_until_empty(3600)
        elapsed = time.time() - report["started_unix_ms"] / 1000
        self.check(dovecot, mailboxes)
        postfix.stop()
        dovecot.stop()
        accepted = report["operations_per_second"]
        return self.outcome(report, elapsed) | {"accepted_per_second": accepted}

    def leg_dovecot(self, mailboxes):
        return self.leg_direct(self.dovecot(), "lmtp", mailboxes)

    def leg_rookery(self, protocol, mailboxes):
        return self.leg_direct(self.rookery(), protocol, mailboxes)

    def leg_direct(self, server, protocol, mailboxes):
        server.start()
        port = getattr(server, protocol)
        self.send(protocol, port, WARM, 1, max(self.args.messages // 20, 10))
        report = self.send(protocol, port, f"u{{n}}@{DOMAIN}", mailboxes, self.args.messages)
        self.check(server, mailboxes)
        server.stop()
        shutil.rmtree(server.folder)
        return self.outcome(report, report["elapsed_seconds"])

    def outcome(self, report, elapsed):
        return {"per_second": self.args.messages / elapsed, "elapsed_seconds": elapsed,
                "latency_ms": report["latency_ms"], "started_load": os.getloadavg()[0]}

    def check(self, server, mailboxes):
        found = server.count(self.users[:mailboxes])
        if found != self.args.messages:
            raise Failed(f"{server.name} has {found} messages of {self.args.messages}")

    # (b) ---

    def imap(self):
        all_, one = ["--set", "1:*"], ["--set", "one"]
        workloads = {
            "FETCH flags, all": ["fetch-flags", *all_],
            "FETCH envelope, all": ["fetch-envelope", *all_],
            "FETCH body, all": ["fetch-body", *all_],
            "FETCH body, one": ["fetch-body", *one],
            "STORE flag, one": ["store", *one],
            "STORE flag, all": ["store", *all_],
            "SEARCH flag": ["search", "--search", "UNSEEN"],
            "SEARCH subject": ["search", "--search", "SUBJECT 00000000000000"],
            "SEARCH text": ["search", "--search", "TEXT not-to-be-found"],
            "SELECT": ["select"],
            "APPEND": ["append", "--size", self.args.size, "--user", self.users[-1]],
        }
        servers = [self.dovecot(), self.rookery()]
        for server in servers:
            server.start()
            say(f"filling {server.name} with {self.args.imap_messages} messages")
            self.send("lmtp", server.lmtp, self.users[0], 1, self.args.imap_messages)
        found = self.results["imap"] = {}
        for what, workload in workloads.items():
            cell = found[what] = {server.name: [] for server in servers}
            user = [] if "--user" in workload else ["--user", self.users[0]]
            for number in range(self.args.rounds):
                turn = servers if number % 2 == 0 else servers[::-1]
                for server in turn:
                    report = self.bench(
                        "imap", "--port", server.imap, "--workload", *workload, *user,
                        "--connections", self.args.imap_connections,
                        "--duration", self.args.imap_seconds,
                        "--warm-up", self.args.imap_seconds / 4)
                    cell[server.name].append({
                        "per_second": report["operations_per_second"],
                        "items_per_operation": report["items"] / report["operations"],
                        "latency_ms": report["latency_ms"]})
            told = {name: median(rounds) for name, rounds in cell.items()}
            say(f"imap, {what}: " + ", ".join(f"{k} {v:.1f}/s" for k, v in told.items()))
            items = {round(each["items_per_operation"]) for rounds in cell.values()
                     for each in rounds}
            if len(items) > 1:
                say(f"  the servers' answers differ: {sorted(items)} items an operation")
        for server in servers:
            server.stop()

    # (c) ---

    def memory(self):
        rookery = self.rookery()
        rookery.start()
        # What starting took is given back, or is not.
        time.sleep(2)
        idle, _ = memory(rookery.server.pid)
        sessions = self.args.sessions
        command = [self.args.rookery, "bench", "imap", "--port", str(rookery.imap),
                   "--workload", "idle", "--connections", str(sessions),
                   "--user", f"u{{n}}@{DOMAIN}", "--users", str(len(self.users)),
                   "--duration", "30", "--timeout", "300", "--json"]
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True,
                                  env={**os.environ, "ROOKERY_BENCH_PASSWORD": PASSWORD})
        try:
            line = client.stderr.readline()
            if line.strip() != f"holding {sessions} sessions":
                out, error = client.communicate()
                raise Failed(f"{' '.join(command)}: {line}{error}{out}")
            time.sleep(2)
            held, _ = memory(rookery.server.pid)
            client.communicate()
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()
        rookery.stop()
        self.results["memory"] = {
            "idle_bytes": idle, "sessions": sessions, "held_bytes": held,
            "per_session_bytes": (held - idle) / sessions}
        say(f"memory: {idle / 1e6:.1f} MB idle, {(held - idle) / sessions / 1e3:.1f} kB a session")

    # (e) ---

    def large(self):
        rookery = self.rookery()
        rookery.start()
        time.sleep(2)
        pid, user = rookery.server.pid, self.users[0]
        found = self.results["large"] = {}
        for when in ("fresh", "warm"):
            for what in ("LMTP in", "IMAP out"):
                # Five sets the high-water mark back to what is resident now.
                Path(f"/proc/{pid}/clear_refs").write_text("5")
                before, _ = memory(pid)
                if what == "LMTP in":
                    report = self.send("lmtp", rookery.lmtp, user, 1, 1, LARGE_BYTES, 1)
                else:
                    report = self.bench("imap", "--port", rookery.imap, "--workload", "fetch-body",
                                        "--set", "*", "--user", user, "--count", 1,
                                        "--connections", 1)
                after, peak = memory(pid)
                found[f"{what}, {when}"] = {
                    "seconds": report["elapsed_seconds"], "peak_growth_bytes": peak - before,
                    "kept_bytes": after - before, "before_bytes": before}
                say(f"large, {what}, {when}: {report['elapsed_seconds']:.2f} s, "
                    f"peak +{(peak - before) / 1e6:.1f} MB, kept +{(after - before) / 1e6:.1f} MB")
        rookery.stop()

    # (d) ---

    def select(self):
        count = self.args.select_messages
        found = self.results["select"] = {"messages": count}
        makers = {"rookery": self.rookery, "dovecot": self.dovecot}
        for name in self.args.select_on.split(","):
            server = makers[name]()
            server.start()
            say(f"filling {name} with {count} messages")
            filled = self.send("lmtp", server.lmtp, self.users[0], 1, count, "400")
            server.stop()
            server.start()
            select = lambda: self.bench("imap", "--port", server.imap, "--workload", "select",
                                        "--user", self.users[0], "--count", 1,
                                        "--connections", 1)
            reports = [select(), select()]
            for report in reports:
                if report["items"] != count:
                    raise Failed(f"{name} shows {report['items']} messages of {count}")
            first, again = [report["latency_ms"]["max"] for report in reports]
            server.stop()
            found[name] = {"first_ms": first, "again_ms": again,
                           "filled_per_second": filled["items_per_second"]}
            say(f"select, {name}: first {first:.1f} ms, again {again:.1f} ms")


def median(rounds):
    return statistics.median(each["per_second"] for each in rounds)


# --- Report --------------------------------------------------------------------------------------

def table(rows):
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}"


def summary(results):
    parts = []
    if "deliver" in results:
        rows = [["delivered messages/s", "postfix+dovecot", "dovecot-lmtp", "rookery-lmtp",
                 "rookery-smtp", "lmtp ratio", "smtp ratio"]]
        for what, cell in results["deliver"].items():
            told = {name: median(rounds) for name, rounds in cell.items()}
            rows.append([what, *(f"{value:.0f}" for value in told.values()),
                         ratio(told["rookery-lmtp"], told["dovecot-lmtp"]),
                         ratio(told["rookery-smtp"], told["postfix+dovecot"])])
        parts.append(table(rows))
    if "imap" in results:
        rows = [["IMAP operations/s", "dovecot", "rookery", "ratio", "dovecot p50 ms",
                 "rookery p50 ms"]]
        for what, cell in results["imap"].items():
            told = {name: median(rounds) for name, rounds in cell.items()}
            p50 = {name: statistics.median(each["latency_ms"]["p50"] for each in rounds)
                   for name, rounds in cell.items()}
            rows.append([what, f"{told['dovecot']:.1f}", f"{told['rookery']:.1f}",
                         ratio(told["rookery"], told["dovecot"]),
                         f"{p50['dovecot']:.2f}", f"{p50['rookery']:.2f}"])
        parts.append(table(rows))
    if "memory" in results:
        found = results["memory"]
        parts.append(table([
            ["Rookery's resident memory", ""],
            ["idle", f"{found['idle_bytes'] / 1e6:.1f} MB"],
            [f"a further idle session, of {found['sessions']}",
             f"{found['per_session_bytes'] / 1e3:.1f} kB"]]))
    if "large" in results:
        rows = [["50 MB message, Rookery", "seconds", "peak growth MB", "kept MB"]]
        for what, each in results["large"].items():
            rows.append([what, f"{each['seconds']:.2f}", f"{each['peak_growth_bytes'] / 1e6:.1f}",
                         f"{each['kept_bytes'] / 1e6:.1f}"])
        parts.append(table(rows))
    if "select" in results:
        found = dict(results["select"])
        rows = [[f"SELECT of {found.pop('messages')}, ms", "first", "again"]]
        for name, each in found.items():
            rows.append([name, f"{each['first_ms']:.1f}", f"{each['again_ms']:.1f}"])
        parts.append(table(rows))
    return "\n".join(parts)


def machine(folder, args):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processors": os.cpu_count(), "processor": cpu.group(1) if cpu else platform.machine(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(), "load_before": os.getloadavg(),
        "file_system": run(["stat", "-f", "-c", "%T", folder]).strip(),
        "postfix": run(["postconf", "-dh", "mail_version"]).strip(),
        "dovecot": run(["dovecot", "--version"]).strip(), "dovecot_mail": args.dovecot_mail,
        "rookery": run([args.rookery, "version"]).strip()}


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    add = parser.add_argument
    add("--rookery", default=str(root / "target/release/rookery"), help="a release build")
    add("--parts", default="deliver,imap,memory,large", help="[default: %(default)s]")
    add("--quick", action="store_true", help="few messages, one round: to see that all works")
    add("--rounds", type=int, default=5)
    add("--messages", type=int, default=10000, help="of one delivery leg")
    add("--size", default="10KB")
    add("--connections", type=int, default=64, help="for deliveries")
    add("--mailboxes", type=int, default=100)
    add("--imap-messages", type=int, default=10000, help="in the mailbox worked on")
    add("--imap-connections", type=int, default=1)
    add("--imap-seconds", type=float, default=8)
    add("--sessions", type=int, default=10000, help="idle IMAP sessions")
    add("--select-messages", type=int, default=0, help="adds the part `select`")
    add("--select-on", default="rookery", help="rookery, dovecot, or rookery,dovecot")
    add("--dovecot-mail", default="maildir:~/Maildir", help="Dovecot's mail_location")
    add("--threads", type=int, default=1, help="of the load generator")
    add("--json", default="compare.json", metavar="FILE", help="[default: %(default)s]")
    add("--folder", help="where the temporary folder goes; decides which disk is measured")
    add("--no-install", action="store_true", help="fail where a server is missing")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.messages, args.mailboxes = 1, 200, 10
        args.imap_messages, args.imap_seconds, args.sessions = 300, 1, 200
    args.parts = args.parts.split(",")
    if args.select_messages and "select" not in args.parts:
        args.parts.append("select")
    unknown = set(args.parts) - {"deliver", "imap", "memory", "large", "select"}
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    if "select" in args.parts and not args.select_messages:
        parser.error("the part select needs --select-messages")
    if not os.access(args.rookery, os.X_OK):
        parser.error(f"{args.rookery} is not there: cargo build --release -p rookery")
    if os.geteuid() != 0:
        parser.error("Postfix and Dovecot start as root only")
    args.rookery = str(Path(args.rookery).resolve())
    return args


def raise_file_limit(args):
    """One a session, in the server and in its client; both inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, args.sessions + 1000)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except ValueError:
        if "memory" in args.parts:
            raise Failed(f"{args.sessions} sessions need {wanted} open files; {hard} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ended(_signal, _frame):
    raise KeyboardInterrupt


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGHUP, ended)
    raise_file_limit(args)
    if not args.no_install:
        install()
    if not run(["dovecot", "--version"]).startswith("2.3"):
        raise Failed("this script writes configurations for Dovecot 2.3 only")
    # Short, as sockets lie in it; enterable, as the servers have users of their own.
    folder = Path(tempfile.mkdtemp(prefix="rkb", dir=args.folder))
    folder.chmod(0o755)
    try:
        comparison = Comparison(args, folder)
        report = {"machine": machine(folder, args), "arguments": vars(args),
                  "results": comparison.results}
        comparison.prepare()
        for part in args.parts:
            getattr(comparison, part)()
        report["load_after"] = os.getloadavg()
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
        print(summary(comparison.results))
        say(f"all of it is in {args.json}")
    finally:
        # A second Ctrl-C must not leave a server behind.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        stop_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started is stopped")
    except Failed as failed:
        sys.exit(f"compare: {failed}")
