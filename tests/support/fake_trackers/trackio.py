"""In place of trackio, in the process of a tracker: writes what it gets to a file, and fails as a file says."""

import json
import os
import socket
import sqlite3
import time
import urllib.request
from pathlib import Path

HERE = Path(os.environ["FAKE_TRACKER"])


def fault():
    """The fault as it is now; empty when there is none."""
    path = HERE / "fault"
    return path.read_text() if path.exists() else ""


def fail():
    """Do what a tracker in trouble does; the network and the database are real ones."""
    kind, _, where = fault().partition(" ")
    if kind == "refused":
        socket.create_connection(("127.0.0.1", int(where)))
    elif kind in ("500", "silent"):
        urllib.request.urlopen(f"http://127.0.0.1:{where}/log", data=b"{}")
    elif kind == "locked":
        with sqlite3.connect(where, timeout=0.1) as database:
            database.execute("insert into points values (1)")
    elif kind == "crash":
        os.abort()
    elif kind == "noise":
        print("x" * 10_000_000, flush=True)
    elif kind == "after" and (HERE / "got.jsonl").read_text().count('"step"') == int(where):
        raise RuntimeError(f"no more than {where} rows")
    elif kind == "slow":
        while fault() == "slow":
            time.sleep(0.05)


def write(line):
    with (HERE / "got.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def init(**settings):
    write({"init": settings["name"], "project": settings["project"], "resume": settings["resume"]})
    fail()


def log(values, step):
    fail()
    write({"step": step, **values})


def finish():
    write({"finish": True})
