#!/usr/bin/env python3
"""Compares how fast Rookery and Postfix send to other servers, and what a dead domain costs Rookery.

    cargo build --release -p rookery
    sudo ops/bench/outbound.py                    # both parts
    sudo ops/bench/outbound.py --parts backlog --backlog 1000000

Needs root and Postfix, as compare.py does, whose servers it uses: temporary folders, loopback, free
ports, processes ended by their ids.

Parts (--parts):
  send     messages a second, from the first that is offered until the last is at Postfix's `smtp-sink`.
           Both take the same load over SMTP with their own durability and hand it to the same sink;
           Postfix is told where by `transport_maps`, Rookery asks a DNS server. The order turns from
           round to round.
  backlog  first --messages to a domain that lives, on an empty queue; then --backlog messages to
           domains whose server refuses connections; then the same --messages again. Prints both
           rates, and Rookery's memory before and after.

Medians of all rounds; a ratio above 1 means that Rookery does more.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import compare
from compare import DOMAIN, Failed, Postfix, Rookery, Server, free_ports, memory, run, say

ALIVE = "alive.test"
DEAD = "dead.test"
WAIT_SECONDS = 1800


def answer_names(port):
    """Every domain's mail server is itself; the addresses of those below DEAD have no server."""
    answers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    answers.bind(("127.0.0.1", port))

    def serve():
        while True:
            query, client = answers.recvfrom(1500)
            end, labels = 12, []
            while query[end]:
                labels.append(query[end + 1:end + 1 + query[end]])
                end += query[end] + 1
            kind = struct.unpack(">H", query[end + 1:end + 3])[0]
            question = query[12:end + 5]
            name = b".".join(labels).decode().lower()
            record = None
            if kind == 15:
                record = struct.pack(">H", 10) + b"\xc0\x0c"
            elif kind == 1:
                record = socket.inet_aton("127.0.0.9" if name.endswith(DEAD) else "127.0.0.1")
            head = query[:2] + b"\x85\x80" + struct.pack(">HHHH", 1, 1 if record else 0, 0, 0)
            answer = head + question
            if record:
                answer += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 3600, len(record)) + record
            answers.sendto(answer, client)

    threading.Thread(target=serve, daemon=True).start()


class Sink:
    """Postfix's sink, which counts."""

    def __init__(self, folder):
        (self.port,) = free_ports(1)
        self.log = folder / "sink.log"
        self.server = None

    def start(self):
        self.log.unlink(missing_ok=True)
        self.server = Server("smtp-sink", [
            "smtp-sink", "-u", "nobody", "-c", f"127.0.0.1:{self.port}", "1000"], self.log)
        self.server.wait_for(lambda: compare.accepts(self.port), "listening")

    def stop(self):
        self.server.stop()

    def messages(self):
        with open(self.log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 200))
            found = re.findall(rb"mesg=(\d+)", file.read())
        return int(found[-1]) if found else 0

    def wait_for(self, count):
        deadline = time.monotonic() + WAIT_SECONDS
        while self.messages() < count:
            if time.monotonic() > deadline:
                raise Failed(f"the sink has {self.messages()} of {count}")
            time.sleep(0.01)


class Sending(Rookery):
    """A Rookery that sends to the sink, through an alias a domain."""

    def __init__(self, binary, folder, sink, names):
        super().__init__(binary, folder)
        with open(self.config, "a") as config:
            config.write(f'[log]\nlevel = "warn"\n[dns]\nservers = ["127.0.0.1:{names}"]\n'
                         f'dnssec = "off"\n[outbound]\nport = {sink.port}\n')

    def prepare(self, aliases):
        run([self.binary, "domain", "add", DOMAIN, "--config", self.config])
        for alias, target in aliases.items():
            run([self.binary, "alias", "add", alias, target, "--config", self.config])


def send_postfix(folder, sink, names):
    postfix = Postfix(folder, 1)
    with open(postfix.etc / "main.cf", "a") as config:
        config.write(f"transport_maps = static:smtp:[127.0.0.1]:{sink.port}\n")
    return postfix


def load(options, port, to, count, errors_max=0):
    """Offers messages; the seconds that it took until all were taken."""
    begun = time.monotonic()
    run([options.binary, "bench", "smtp", "--port", str(port), "--count", str(count),
         "-c", str(options.connections), "--size", options.size, "--to", to,
         "--errors-max", str(errors_max)])
    return time.monotonic() - begun


def measure(options, server, sink, to):
    begun, held = time.monotonic(), sink.messages()
    accepted = load(options, server.smtp, to, options.messages)
    sink.wait_for(held + options.messages)
    took = time.monotonic() - begun
    return {"accepted_seconds": accepted, "sent_seconds": took, "per_second": options.messages / took}


def part_send(options, folder, names):
    rounds = []
    for number in range(options.rounds):
        order = ["postfix", "rookery"] if number % 2 == 0 else ["rookery", "postfix"]
        found = {}
        for name in order:
            place = folder / f"send-{number}-{name}"
            place.mkdir()
            sink = Sink(place)
            sink.start()
            if name == "postfix":
                server, to = send_postfix(place / "server", sink, names), f"x@{ALIVE}"
            else:
                server, to = Sending(options.binary, place / "server", sink, names), f"out@{DOMAIN}"
                server.prepare({to: f"x@{ALIVE}"})
            server.start()
            found[name] = measure(options, server, sink, to)
            server.stop()
            sink.stop()
            shutil.rmtree(place)
            say(f"round {number + 1}: {name} {found[name]['per_second']:.0f} messages a second")
        rounds.append(found)
    rate = lambda name: statistics.median(it[name]["per_second"] for it in rounds)
    ratio = statistics.median(
        it["rookery"]["per_second"] / it["postfix"]["per_second"] for it in rounds)
    print(f"sending: Rookery {rate('rookery'):.0f}, Postfix {rate('postfix'):.0f} messages a second, "
          f"ratio {ratio:.1f} ({options.rounds} rounds of {options.messages})")
    return rounds


def part_backlog(options, folder, names):
    place = folder / "backlog"
    place.mkdir()
    sink = Sink(place)
    sink.start()
    server = Sending(options.binary, place / "server", sink, names)
    alive, dead = f"out@{DOMAIN}", f"dead@{DOMAIN}"
    server.prepare({alive: f"x@{ALIVE}", dead: f"x@{DEAD}"})
    server.start()
    rates = lambda: [measure(options, server, sink, alive)["per_second"]
                     for _ in range(options.rounds)]
    empty, memory_before = rates(), memory(server.server.pid)
    took = load(options, server.smtp, dead, options.backlog, errors_max=100)
    say(f"{options.backlog} messages for a dead domain were taken in {took:.0f} s")
    full, memory_after = rates(), memory(server.server.pid)
    server.stop()
    sink.stop()
    ratio = statistics.median(full) / statistics.median(empty)
    print(f"backlog of {options.backlog}: {statistics.median(empty):.0f} messages a second before, "
          f"{statistics.median(full):.0f} with it, ratio {ratio:.2f}; memory {memory_before[0] >> 20} MiB "
          f"before, {memory_after[0] >> 20} MiB with it (most: {memory_after[1] >> 20} MiB)")
    return {"empty": empty, "full": full, "filled_seconds": took,
            "memory_before": memory_before, "memory_after": memory_after}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/rookery", type=Path)
    parser.add_argument("--parts", default="send,backlog")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--messages", default=5000, type=int)
    parser.add_argument("--backlog", default=100_000, type=int)
    parser.add_argument("--connections", default=32, type=int)
    parser.add_argument("--size", default="10k")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    compare.install()
    folder = Path(tempfile.mkdtemp(prefix="rookery-outbound-"))
    folder.chmod(0o755)
    results = {}
    try:
        (names,) = free_ports(1)
        answer_names(names)
        for part in options.parts.split(","):
            results[part] = {"send": part_send, "backlog": part_backlog}[part](options, folder, names)
    except (Failed, KeyboardInterrupt) as error:
        sys.exit(f"outbound.py: {error}")
    finally:
        compare.stop_all()
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
