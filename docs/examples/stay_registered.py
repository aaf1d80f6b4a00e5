#!/usr/bin/env python3
"""Keeps a program registered for as long as this runs, with nothing but a socket and JSON.

    stay_registered.py SERVER[,SERVER...] NAME HOST:PORT [CHECK]

CHECK is the check as JSON; by default GET /health. SIGTERM and Ctrl-C drain, wait a second, and deregister.
docs/rpc.md explains each step.
"""
import json
import random
import re
import signal
import socket
import struct
import sys
import time
import uuid

RENEW = 5.0  # seconds between two questions, if a ttl does not ask for less
NOTICE = 1.0  # how long callers are given to notice that it drains
REFUSED = 30
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


class Connection:
    """One connection to a server. Whatever goes wrong with it is an OSError."""

    def __init__(self, server):
        host, port = server.rsplit(":", 1)
        # No answer within ten seconds: the server is frozen, and another one may not be.
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        self.calls = 0
        self.send({"roundsman": 3, "codec": "json"})
        welcome = self.receive()
        if not welcome["ok"]:
            raise OSError(welcome["error"])

    def send(self, message):
        body = json.dumps(message).encode()
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def receive(self):
        return json.loads(self.exactly(struct.unpack(">I", self.exactly(4))[0]))

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise OSError("the server hung up")
            data += part
        return data

    def call(self, method, **arguments):
        """What the method answers: {"Ok": ...} or {"Err": ...}."""
        self.calls += 1
        self.send({"Request": {"id": self.calls, "message": {method: arguments}}})
        answer = self.receive()["message"]
        if "Err" in answer:  # It could not even be read: a mistake in this program.
            sys.exit(f"{method}: {answer['Err']['detail']}")
        return answer["Ok"][method]


def renewal(check):
    """How long to wait before the server is asked again: three times within a ttl, so that one may come to nothing."""
    parts = re.findall(r"(\d+) *(ms|s|m|h)\b", check.get("ttl") or "")
    ttl = sum(int(count) * UNITS[unit] for count, unit in parts)
    return min(RENEW, ttl / 3) if ttl else RENEW


def stay(server, registration, registered):
    """Registers, and asks again and again whether the server still knows us. Returns when it does not."""
    discovery = Connection(server)
    answer = discovery.call("Register", registration=registration)
    if "Replaced" in answer.get("Err", {}) or "Blocked" in answer.get("Err", {}):
        # Another one has our address, or an operator keeps us out: that takes its time.
        print("refused for long:", answer["Err"], flush=True)
        time.sleep(REFUSED)
        raise OSError("refused")
    if "Err" in answer:
        if "Invalid" in answer["Err"]:
            sys.exit(f"refused for good: {answer['Err']}")
        raise OSError(f"refused for now: {answer['Err']}")
    # From now on it takes its address from nobody who came there later.
    registration["again"] = True
    registered(discovery)
    while "Ok" in discovery.call("Renew", id=registration["id"]):
        time.sleep(renewal(registration["check"]) * random.uniform(0.8, 1.0))


def arguments():
    """The servers, name, address and check; or how this is used."""
    try:
        servers, name, address = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
        check = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {"kind": "http", "path": "/health"}
    except (IndexError, ValueError):
        sys.exit(__doc__)
    if not isinstance(check, dict) or not all(re.fullmatch(r".+:\d+", server) for server in servers):
        sys.exit(__doc__)
    return servers, name, address, check


def main():
    servers, name, address, check = arguments()
    # The id is chosen once, here: registering again never makes a second instance.
    registration = {"name": name, "address": address, "id": f"{name}-{uuid.uuid4().hex[:10]}", "check": check}
    state = {"discovery": None, "pause": 0.1}

    def registered(discovery):
        state.update(discovery=discovery, pause=0.1)
        print("registered as", registration["id"], flush=True)

    def leave(*_):
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    attempt = 0
    try:
        while True:
            try:
                stay(servers[attempt % len(servers)], registration, registered)
                print("forgotten; registering again", flush=True)
            except (OSError, ValueError, KeyError) as error:
                print("lost the server:", error, flush=True)
                state["discovery"] = None
                attempt += 1
            # Growing and random, so that thousands who lost the same server do not come back at the same moment.
            time.sleep(state["pause"] * random.uniform(0.5, 1.0))
            state["pause"] = min(state["pause"] * 2, 30)
    finally:
        if state["discovery"]:
            try:
                state["discovery"].call("Drain", id=registration["id"], on=True)
                time.sleep(NOTICE)
                state["discovery"].call("Deregister", id=registration["id"])
            except OSError:
                pass  # Whoever does not answer its visits any more is evicted.


if __name__ == "__main__":
    main()
