#!/usr/bin/env python3
"""Verify a norion record, or a proof from one, with Python's standard library alone.

It shares no code with norion and follows ledger.md, beside it: trust in a record need not be trust
in the program that wrote it.

    ledger_verify.py record DIR [WITNESS]
    ledger_verify.py file LOG.PUB FILE [OLDER-CHECKPOINT]

The exit code is 1 when anything does not hold. Sealed texts are not opened, since Python has no
AES, and projections are not computed.
"""

import base64
import hashlib
import json
import os
import re
import sqlite3
import sys
from decimal import Decimal


class Bad(Exception):
    """What does not hold."""


def want(holds, *what):
    if not holds:
        raise Bad(": ".join(str(w) for w in what))


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def unbase64(text):
    """Decodes strictly: no other spelling of the same bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Bad("no base64") from None
    want(base64.b64encode(raw) == text, "base64 is not in its one form")
    return raw


# Ed25519 (RFC 8032), verification only.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def point(encoded):
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    want((x * x - x2) % P == 0 and y < P and (x or not sign), "no point of the curve")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * D, 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = add(q, p)
        p, n = add(p, p), n >> 1
    return q


def encoded(p):
    inverse = pow(p[2], -1, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def signed(public, message, signature):
    s = int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    x, y, z, t = point(public)
    minus = (P - x) % P, y, z, (P - t) % P
    return s < ORDER and encoded(add(times(s, BASE), times(h, minus))) == signature[:32]


# Keys, notes and checkpoints.


def parse_key(data):
    m = re.fullmatch(rb"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)\n", data)
    want(m, "no public key")
    name, raw = m[1], unbase64(m[3])
    want(len(raw) == 33 and raw[0] == 1, "no Ed25519 key")
    ident = sha256(name, b"\n", raw)[:4]
    want(ident.hex().encode() == m[2], "the key's identity is not its own")
    return name, ident, raw[1:]


class Checkpoint:
    def __init__(self, data, key):
        name, ident, public = key
        text, empty, signatures = data.rpartition(b"\n\n")
        text += b"\n"
        want(empty and signatures.endswith(b"\n"), "no signed note")
        good = False
        for line in signatures[:-1].split(b"\n"):
            m = re.fullmatch("— ".encode() + rb"([^\s+]+) (\S+)", line)
            want(m, "no signature line")
            raw = unbase64(m[2])
            if m[1] == name and raw[:4] == ident:
                want(len(raw) == 68 and signed(public, text, raw[4:]), "a wrong signature")
                good = True
        want(good, "no signature by the record's key")
        m = re.fullmatch(rb"([^\n]+)\n(0|[1-9][0-9]*)\n([^\n]+)\n"
                         rb"(?:closed sha256:([0-9a-f]{64})\n)?", text)
        want(m and m[1] == name, "no checkpoint of this log")
        self.size, self.root = int(m[2]), unbase64(m[3])
        self.closed = bytes.fromhex(m[4].decode()) if m[4] else None
        want(len(self.root) == 32, "no root")


# Canonical JSON (RFC 8785) and events.

NAME = re.compile(r"[A-Za-z0-9._/:@+=-]*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MEMBERS = {"actor": str, "body": dict, "key": str, "kind": str, "payload": str, "schema": int,
           "scope": dict, "seq": int, "stream": str, "time_us": int, "version": int}


def number(x):
    """Spells a number as ECMAScript does."""
    if isinstance(x, int):
        want(abs(x) < 2**53, "a number beyond 2^53")
        return str(x)
    if x == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(x)).normalize().as_tuple()
    s, n = "".join(map(str, digits)), len(digits) + exponent
    if len(s) <= n <= 21:
        s += "0" * (n - len(s))
    elif 0 < n <= 21:
        s = s[:n] + "." + s[n:]
    elif -6 < n <= 0:
        s = "0." + "0" * -n + s
    else:
        s = s[0] + ("." + s[1:] if s[1:] else "") + f"e{n - 1:+d}"
    return "-" * sign + s


def canonical(v):
    if v is None or isinstance(v, (bool, str)):
        return json.dumps(v, ensure_ascii=False)
    if isinstance(v, list):
        return "[" + ",".join(map(canonical, v)) + "]"
    if isinstance(v, dict):
        names = sorted(v, key=lambda k: k.encode("utf-16-be"))
        return "{" + ",".join(canonical(k) + ":" + canonical(v[k]) for k in names) + "}"
    return number(v)


def parse_event(data):
    def members(pairs):
        want(len({k for k, _ in pairs}) == len(pairs), "a member twice")
        return dict(pairs)

    try:
        e = json.loads(data.decode(), object_pairs_hook=members)
        same = canonical(e).encode() == data
    except (ValueError, ArithmeticError) as fault:
        raise Bad(f"no JSON: {fault}") from None
    want(same, "not in canonical form")
    want(MEMBERS.keys() - {"key", "payload"} <= e.keys() <= MEMBERS.keys(), "other members")
    want(all(type(v) is MEMBERS[k] for k, v in e.items()), "a member of another type")
    want(e["scope"].keys() == {"session", "tenant", "workspace"}, "no scope")
    scope = list(e["scope"].values())
    names = [e[k] for k in ("actor", "kind", "stream", "key") if k in e]
    want(all(type(n) is str and NAME.fullmatch(n) for n in scope + names), "no name")
    want(all(len(n) <= 64 for n in scope), "a part of the scope is too long")
    want(all(1 <= len(n) <= 128 for n in names), "a name is empty or too long")
    want("payload" not in e or DIGEST.fullmatch(e["payload"]), "no digest")
    want(e["schema"] >= 1, "no schema version")
    return e


# The tree (RFC 6962, section 2.1).


def leaf_hash(data):
    return sha256(b"\0", data)


def node(left, right):
    return sha256(b"\1", left, right)


def split(n):
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


class Tree:
    """Takes leaf hashes in order; keeps the roots of the full subtrees, largest first."""

    def __init__(self):
        self.size, self.peaks, self.open = 0, [], {}

    def add(self, h):
        """Returns the tiles that the leaf completes: level, number, bytes."""
        tiles, height = [], 0
        while True:
            if height % 8 == 0:
                level = height // 8
                edge = self.open.setdefault(level, [])
                edge.append(h)
                if len(edge) == 256:
                    tiles.append((level, self.size >> 8 * (level + 1), b"".join(edge)))
                    self.open[level] = []
            if not self.peaks or self.peaks[-1][0] != height:
                break
            h, height = node(self.peaks.pop()[1], h), height + 1
        self.peaks.append((height, h))
        self.size += 1
        return tiles

    def root(self):
        if not self.peaks:
            return sha256()
        *left, (_, h) = self.peaks
        for _, peak in reversed(left):
            h = node(peak, h)
        return h


def included(index, size, h, path):
    """The root that an inclusion proof (2.1.1) leads to from a leaf hash."""
    if size == 1:
        want(not path, "too many hashes")
        return h
    want(path, "too few hashes")
    *below, beside = path
    k = split(size)
    if index < k:
        return node(included(index, k, h, below), beside)
    return node(beside, included(index - k, size - k, h, below))


def grown(old, size, path, whole):
    """The roots of the old and the new tree after a consistency proof (2.1.2). whole is the old
    root while the subtree is all of the old tree, else None."""
    if old == size:
        want(len(path) == (0 if whole else 1), "not as many hashes as it takes")
        h = whole or path[0]
        return h, h
    want(path, "too few hashes")
    *below, beside = path
    k = split(size)
    if old <= k:
        a, b = grown(old, k, below, whole)
        return a, node(b, beside)
    a, b = grown(old - k, size - k, below, None)
    return node(beside, a), node(beside, b)


def ranged(lo, hi, first, leaves, hashes):
    """The root over lo to hi: leaves are known from first on, the rest comes from hashes."""
    if hi <= first or lo >= first + len(leaves):
        want(hashes, "too few hashes")
        return hashes.pop(0)
    if hi - lo == 1:
        return leaves[lo - first]
    k = lo + split(hi - lo)
    left = ranged(lo, k, first, leaves, hashes)
    return node(left, ranged(k, hi, first, leaves, hashes))


# Files.


def read(path):
    with open(path, "rb") as f:
        return f.read()


def fields(data, *names):
    """The fields of a proof file's head, its hashes, and what follows its first empty line."""
    head, empty, rest = data.partition(b"\n\n")
    lines = head.split(b"\n")[1:]
    want(empty and len(lines) >= len(names), "the head is cut")
    values = []
    for name, line in zip(names, lines):
        m = re.fullmatch(name + rb" (\S+)", line)
        want(m, "no field", name.decode())
        values.append(m[1])
    hashes = [unbase64(line) for line in lines[len(names):]]
    want(all(len(h) == 32 for h in hashes), "no hash")
    return values, hashes, rest


def integer(text):
    want(re.fullmatch(rb"0|[1-9][0-9]{0,15}", text), "no number")
    return int(text)


def check_inclusion(data, key):
    (extra, index), hashes, rest = fields(data, b"extra", b"index")
    e, index, cp = unbase64(extra), integer(index), Checkpoint(rest, key)
    want(index < cp.size, "the checkpoint does not cover it")
    want(included(index, cp.size, leaf_hash(e), hashes) == cp.root, "it leads to another root")
    want(parse_event(e)["seq"] == index + 1, "another event")
    return [e], cp


def check_export(data, key):
    (first, count), hashes, rest = fields(data, b"first", b"events")
    first, count = integer(first), integer(count)
    lines = rest.split(b"\n", count)
    want(first >= 1 and count >= 1 and len(lines) == count + 1, "events are missing")
    events, rest = lines[:count], lines[count]
    want(rest[:1] == b"\n", "more events than it says")
    cp = Checkpoint(rest[1:], key)
    want(first - 1 + count <= cp.size, "the checkpoint does not cover it")
    for i, e in enumerate(events):
        want(parse_event(e)["seq"] == first + i, "another event")
    root = ranged(0, cp.size, first - 1, [leaf_hash(e) for e in events], hashes)
    want(root == cp.root and not hashes, "it leads to another root")
    return events, cp


def check_consistency(data, key, older):
    want(older, "name the older checkpoint")
    (old,), hashes, rest = fields(data, b"old")
    was, cp = Checkpoint(read(older), key), Checkpoint(rest, key)
    want(1 <= was.size == integer(old) <= cp.size, "it belongs to another older checkpoint")
    want(grown(was.size, cp.size, hashes, was.root) == (was.root, cp.root), "it did not only grow")
    return [], cp


def check_file(key, path, older=None):
    key, data = parse_key(read(key)), read(path)
    header = data.partition(b"\n")[0]
    if header == b"c2sp.org/tlog-proof@v1":
        return check_inclusion(data, key)
    if header == b"norion/export@v1":
        return check_export(data, key)
    if header == b"norion/consistency@v1":
        return check_consistency(data, key, older)
    return [], Checkpoint(data, key)


# A record.

EVENTS = """SELECT e.seq, e.version, e.kind, e.schema, e.time_us, e.actor, e.key, e.payload, e.body,
    e.leaf, s.tenant, s.workspace, s.session, s.name
    FROM event e LEFT JOIN stream s ON s.id = e.stream ORDER BY e.seq"""


def event_bytes(row):
    """The bytes of an event, made of the columns of its row."""
    seq, version, kind, schema, time_us, actor, key, payload, body, _, *of_stream = row
    want(None not in of_stream, "it has no stream")
    tenant, workspace, session, stream = of_stream
    member = '{"actor":"%s","body":%s' % (actor, body.decode())
    if key is not None:
        member += ',"key":"%s"' % key
    member += ',"kind":"%s"' % kind
    if payload is not None:
        member += ',"payload":"sha256:%s"' % payload.hex()
    return (member + ',"schema":%d,"scope":{"session":"%s","tenant":"%s","workspace":"%s"}'
            ',"seq":%d,"stream":"%s","time_us":%d,"version":%d}'
            % (schema, session, tenant, workspace, seq, stream, time_us, version)).encode()


class Record:
    """One walk over a record."""

    def __init__(self, directory, witness):
        self.key_text = read(os.path.join(directory, "log.pub"))
        key = parse_key(self.key_text)
        self.cps = [("checkpoint", Checkpoint(read(os.path.join(directory, "checkpoint")), key))]
        if witness:
            self.cps.append(("witness", Checkpoint(read(witness), key)))
        self.tree, self.versions = Tree(), {}
        self.payloads, self.forgotten = set(), set()
        path = os.path.join(directory, "ledger.db")
        closed = self.cps[0][1].closed
        want(not closed or sha256(read(path)) == closed, "ledger.db", "not the bytes signed for")
        journal = os.path.exists(path + "-wal") and os.path.getsize(path + "-wal") > 0
        want(not (closed and journal), "ledger.db", "a journal beside a closed database")
        mode = "mode=ro" if journal else "immutable=1"
        self.db = sqlite3.connect(f"file:{os.path.abspath(path)}?{mode}", uri=True)

    def verify(self):
        def one(sql):
            return self.db.execute(sql).fetchone()[0]

        want(one("PRAGMA application_id") == 0x6E6F7269, "database", "no record")
        want(one("PRAGMA user_version") == 1, "database", "another schema version")
        want(one("PRAGMA integrity_check") == "ok", "database", "damaged")
        self.signed_for()
        for row in self.db.execute(EVENTS):
            try:
                self.event(row)
            except Bad as fault:
                raise Bad(f"event {row[0]}: {fault}") from None
            self.signed_for()
        for name, cp in self.cps:
            want(cp.size <= self.tree.size, name, "fewer events than it was signed for")
        self.sealed()
        return [], self.cps[0][1]

    def signed_for(self):
        for name, cp in self.cps:
            if cp.size == self.tree.size:
                want(cp.root == self.tree.root(), name, "not the events it was signed for")

    def event(self, row):
        want(row[0] == self.tree.size + 1, "an event is missing before it")
        data = event_bytes(row)
        h = leaf_hash(data)
        want(h == row[9], "it is not what was recorded")
        e = parse_event(data)
        for level, n, made in self.tree.add(h):
            have = self.db.execute("SELECT data FROM tile WHERE level = ? AND n = ?", (level, n))
            want(have.fetchone() == (made,), f"tile {level}/{n} has other hashes")
        stream = (*e["scope"].values(), e["stream"])
        self.versions[stream] = self.versions.get(stream, 0) + 1
        want(e["version"] == self.versions[stream], "another version of its stream")
        self.payloads.add(e.get("payload"))
        if e["seq"] == 1:
            body, key = e["body"], self.key_text.decode().rstrip("\n")
            want(e["kind"] == "ledger.created" and body.get("format") == 1
                 and body.get("log_key") == key, "it begins no record of this key")
        if e["kind"] == "payload.forgotten":
            self.forgotten.add(e["body"].get("payload"))

    def sealed(self):
        rows = self.db.execute("""SELECT p.digest, p.sealed, k.key IS NULL
            FROM payload p LEFT JOIN payload_key k ON k.digest = p.digest""")
        for digest, text, keyless in rows:
            name = "sha256:" + digest.hex()
            want(sha256(text) == digest, "payload", name, "the ciphertext was changed")
            want(name in self.payloads, "payload", name, "no event commits to it")
            want((name in self.forgotten) == bool(keyless), "payload", name,
                 "its key is there although it was forgotten, or the other way round")


def main(args):
    try:
        if len(args) in (2, 3) and args[0] == "record":
            record = Record(args[1], args[2] if args[2:] else None)
            events, cp = record.verify()
            print(record.tree.size, "events")
        elif len(args) in (3, 4) and args[0] == "file":
            events, cp = check_file(*args[1:])
        else:
            sys.exit(__doc__)
        for e in events:
            print(e.decode())
        print("holds: signed for", cp.size, "events, root", base64.b64encode(cp.root).decode())
    except (Bad, OSError, sqlite3.Error, UnicodeDecodeError) as fault:
        sys.exit(f"does not hold: {fault}")


if __name__ == "__main__":
    main(sys.argv[1:])
