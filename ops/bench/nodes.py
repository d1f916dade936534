#!/usr/bin/env python3
"""How many messages a second 1, 2 and 3 nodes deliver on one FoundationDB and one bucket.

    cargo build --release -p rookery --features fdb
    ops/bench/nodes.py --s3s-fs PATH                         # an S3 service that it starts itself
    ops/bench/nodes.py --s3 http://HOST:PORT,BUCKET,FILE     # one that runs, and its credentials

Starts a single-process `fdbserver` (found on PATH), the nodes and the load generators in one folder, on
loopback and free ports, and ends them by their process ids. The load is spread over the nodes: 64
connections altogether, messages of 10 kB, to one mailbox, to a hundred, and to a thousand. Prints a
table with what the nodes count themselves: transactions, keys and bytes a message.

All of it runs on one machine: where the nodes have no processor of their own, more nodes are not
faster, and what is seen is what sharing costs. Medians of --rounds.
"""

import argparse
import json
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from compare import Failed, Server, accepts, free_ports, run, say, stop_all

DOMAIN = "example.org"
CONNECTIONS = 64
COUNTS = ["transactions_committed", "keys_read", "range_reads", "keys_written", "written_bytes", "conflicts"]


class World:
    """The servers that nodes share."""

    def __init__(self, folder, options):
        self.folder = folder
        (self.fdb_port, s3_port) = free_ports(2)
        self.cluster_file = folder / "fdb.cluster"
        self.cluster_file.write_text(f"bench:bench@127.0.0.1:{self.fdb_port}\n")
        data = folder / "fdb"
        data.mkdir()
        server = Server("fdbserver", [options.fdbserver, "-p", f"127.0.0.1:{self.fdb_port}", "-C",
                                      self.cluster_file, "-d", data, "-L", data], folder / "fdb.out")
        server.wait_for(lambda: accepts(self.fdb_port), "listening")
        run([options.fdbcli, "-C", self.cluster_file, "--exec", "configure new single ssd",
             "--timeout", "30"])
        if options.s3:
            self.endpoint, self.bucket, self.credentials = options.s3.split(",")
        else:
            self.start_s3(options.s3s_fs, s3_port)
        self.certificate = folder / "cert.pem", folder / "key.pem"
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
             "/CN=localhost", "-keyout", self.certificate[1], "-out", self.certificate[0]])

    def start_s3(self, binary, port):
        key, secret = secrets.token_hex(10), secrets.token_hex(20)
        (self.folder / "s3/mail").mkdir(parents=True)
        self.credentials = self.folder / "credentials"
        self.credentials.write_text(f"{key}\n{secret}\n")
        self.credentials.chmod(0o600)
        self.endpoint, self.bucket = f"http://127.0.0.1:{port}", "mail"
        server = Server("s3s-fs", [binary, "--host", "127.0.0.1", "--port", str(port), "--access-key",
                                   key, "--secret-key", secret, self.folder / "s3"],
                        self.folder / "s3.out", stdout=subprocess.DEVNULL)
        server.wait_for(lambda: accepts(port), "listening")


class Node:
    def __init__(self, world, name, rookery):
        self.rookery = rookery
        folder = world.folder / name
        folder.mkdir()
        self.lmtp, self.http, mesh = free_ports(3)
        self.config = folder / "rookery.toml"
        self.config.write_text(f"""
hostname = "localhost"
data = "{folder}"
tls = {{ certificate = "{world.certificate[0]}", key = "{world.certificate[1]}" }}
[cluster]
node = "{name}"
[listen]
smtp = []
submission = []
submissions = []
lmtp = ["127.0.0.1:{self.lmtp}"]
imap = []
imaps = []
http = ["127.0.0.1:{self.http}"]
mesh = ["127.0.0.1:{mesh}"]
[limits]
connections_per_address_max = 1000
[store]
engine = "fdb"
cluster_file = "{world.cluster_file}"
[blobs]
engine = "s3"
endpoint = "{world.endpoint}"
bucket = "{world.bucket}"
credentials_file = "{world.credentials}"
""")
        self.server = Server(name, [rookery, "serve", "--config", self.config], folder / "out")
        self.server.wait_for(lambda: accepts(self.lmtp), "listening")

    def command(self, *arguments, **more):
        return run([self.rookery, *arguments, "--config", self.config], **more)

    def counts(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics") as answer:
            text = answer.read().decode()
        found = {}
        for count in COUNTS:
            match = re.search(rf"^rookery_store_{count}_total ([0-9.e+]+)$", text, re.M)
            found[count] = float(match.group(1)) if match else 0.0
        return found


def load(rookery, nodes, mailboxes, seconds):
    """Messages a second, and what each took."""
    each = CONNECTIONS // len(nodes)
    before = [node.counts() for node in nodes]
    running = [subprocess.Popen(
        [rookery, "bench", "lmtp", "--port", str(node.lmtp), "-c", str(each), "--duration",
         str(seconds), "--to", f"u{{n}}@{DOMAIN}", "--recipients", str(mailboxes), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for node in nodes]
    reports = [json.loads(process.communicate()[0]) for process in running]
    spent = {count: sum(node.counts()[count] - was[count] for node, was in zip(nodes, before))
             for count in COUNTS}
    messages = sum(report["operations"] for report in reports)
    return {"rate": sum(report["operations_per_second"] for report in reports),
            **{count: spent[count] / messages for count in COUNTS}}


def measure(options, folder):
    world = World(folder, options)
    first = Node(world, "node-1", options.rookery)
    first.command("domain", "add", DOMAIN)
    most = max(options.mailboxes)
    say(f"making {most} accounts")
    for number in range(1, most + 1):
        first.command("account", "add", f"u{number}@{DOMAIN}",
                      env={"ROOKERY_PASSWORD": secrets.token_hex(8), "PATH": ""})
    nodes, results = [first], {}
    while len(nodes) < options.nodes:
        nodes.append(Node(world, f"node-{len(nodes) + 1}", options.rookery))
    for round_number in range(1, options.rounds + 1):
        for mailboxes in options.mailboxes:
            for count in range(1, options.nodes + 1):
                load(options.rookery, nodes[:count], mailboxes, 1)
                found = load(options.rookery, nodes[:count], mailboxes, options.seconds)
                say(f"round {round_number}, {count} nodes, {mailboxes} mailboxes: {found['rate']:.0f}/s")
                results.setdefault((mailboxes, count), []).append(found)
    return results


def table(results):
    head = ["mailboxes", "nodes", "messages/s", *COUNTS]
    print("  ".join(f"{name.replace('transactions_', 'tx_'):>13}" for name in head))
    for (mailboxes, nodes), found in sorted(results.items()):
        median = {key: statistics.median(each[key] for each in found) for key in found[0]}
        row = [mailboxes, nodes, f"{median['rate']:.0f}", *(f"{median[count]:.2f}" for count in COUNTS)]
        print("  ".join(f"{value:>13}" for value in row))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rookery", default="target/release/rookery")
    parser.add_argument("--fdbserver", default=shutil.which("fdbserver"))
    parser.add_argument("--fdbcli", default=shutil.which("fdbcli"))
    s3 = parser.add_mutually_exclusive_group(required=True)
    s3.add_argument("--s3s-fs", help="the program, of the crate of that name")
    s3.add_argument("--s3", help="ENDPOINT,BUCKET,CREDENTIALS_FILE")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--mailboxes", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--json", help="a file for every figure")
    options = parser.parse_args()
    if not options.fdbserver or not options.fdbcli:
        sys.exit("nodes.py: no fdbserver or no fdbcli on PATH")
    options.rookery = str(Path(options.rookery).resolve())
    try:
        with tempfile.TemporaryDirectory(prefix="rookery-nodes-") as folder:
            try:
                results = measure(options, Path(folder))
            finally:
                stop_all()
    except (Failed, KeyboardInterrupt) as error:
        sys.exit(f"nodes.py: {error}")
    table(results)
    if options.json:
        rows = [{"mailboxes": mailboxes, "nodes": nodes, "rounds": found}
                for (mailboxes, nodes), found in results.items()]
        Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
