"""A throw-away server of the PG_CONFIG in the environment, and sessions with it over libpq."""

import ctypes
import ctypes.util
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile

PQ = ctypes.CDLL(ctypes.util.find_library("pq") or "libpq.so.5")
for name, result, arguments in (
    ("PQconnectdb", ctypes.c_void_p, [ctypes.c_char_p]),
    ("PQstatus", ctypes.c_int, [ctypes.c_void_p]),
    ("PQfinish", None, [ctypes.c_void_p]),
    ("PQexec", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    ("PQprepare", ctypes.c_void_p,
     [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]),
    ("PQexecPrepared", ctypes.c_void_p,
     [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int] + [ctypes.c_void_p] * 3 + [ctypes.c_int]),
    ("PQresultStatus", ctypes.c_int, [ctypes.c_void_p]),
    ("PQresultErrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
    ("PQresultErrorField", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]),
    ("PQerrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
    ("PQntuples", ctypes.c_int, [ctypes.c_void_p]),
    ("PQnfields", ctypes.c_int, [ctypes.c_void_p]),
    ("PQgetisnull", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    ("PQgetvalue", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    ("PQclear", None, [ctypes.c_void_p]),
    ("PQsetNoticeProcessor", ctypes.c_void_p, [ctypes.c_void_p] * 3),
    ("PQgetCancel", ctypes.c_void_p, [ctypes.c_void_p]),
    ("PQcancel", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
):
    getattr(PQ, name).restype = result
    getattr(PQ, name).argtypes = arguments

PROCESSOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)
SQLSTATE, FATAL = ord("C"), 7
CONNECTION_OK = 0


# So that a server ends with the script that started it.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


class Failed(Exception):
    """An error of the server. `told` is what it says, whole."""

    def __init__(self, told, sqlstate):
        super().__init__(told)
        self.told, self.sqlstate = told, sqlstate


def value(result, row, column):
    return None if PQ.PQgetisnull(result, row, column) else PQ.PQgetvalue(result, row, column).decode()


class Session:
    """Results are lists of tuples of strings. `notices` has what the server said since `run` began."""

    def __init__(self, conninfo):
        self.pq = PQ.PQconnectdb(conninfo.encode())
        if PQ.PQstatus(self.pq) != CONNECTION_OK:
            raise Failed(PQ.PQerrorMessage(self.pq).decode(), None)
        self.notices = []
        self.processor = PROCESSOR(lambda _, text: self.notices.append(text.decode()))
        PQ.PQsetNoticeProcessor(self.pq, ctypes.cast(self.processor, ctypes.c_void_p), None)

    def run(self, sql, prepared=False):
        self.notices.clear()
        if prepared:
            self.taken(PQ.PQprepare(self.pq, b"", sql.encode(), 0, None))
            return self.taken(PQ.PQexecPrepared(self.pq, b"", 0, None, None, None, 0))
        return self.taken(PQ.PQexec(self.pq, sql.encode()))

    def taken(self, result):
        try:
            if result is None or PQ.PQresultStatus(result) == FATAL:
                told = PQ.PQresultErrorMessage(result) if result else PQ.PQerrorMessage(self.pq)
                state = PQ.PQresultErrorField(result, SQLSTATE) if result else None
                raise Failed(told.decode(), state and state.decode())
            rows, columns = range(PQ.PQntuples(result)), range(PQ.PQnfields(result))
            return [tuple(value(result, row, column) for column in columns) for row in rows]
        finally:
            PQ.PQclear(result)

    def is_alive(self):
        return PQ.PQstatus(self.pq) == CONNECTION_OK

    def close(self):
        PQ.PQfinish(self.pq)
        self.pq = None


def ask(option):
    return subprocess.run([os.environ.get("PG_CONFIG", "pg_config"), option],
                          check=True, capture_output=True, text=True).stdout.strip()


class Server:
    """Runs until the end of the `with`, with the extension as it is in the source tree, yet to be created.

    Its programs are copies, which look for what can be installed beside themselves, so that nothing is
    installed where others have their servers. As a server never runs as root, it has another user where we are
    root.
    """

    def __init__(self, settings=""):
        self.version = ask("--version")
        self.directory = tempfile.mkdtemp(prefix="pgwake_ddl.")
        self.bindir = self.directory + ask("--bindir")
        self.user = None
        if os.geteuid() == 0:
            names = [entry.pw_name for entry in pwd.getpwall()]
            self.user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(self.directory, self.user)
        self.settings = settings

    def install(self):
        shutil.copytree(ask("--bindir"), self.bindir)
        for place in {ask("--sharedir"), ask("--pkglibdir")}:
            shutil.copytree(place, self.directory + place, copy_function=os.symlink, dirs_exist_ok=True)
        sources = f"{self.directory}/extension"
        shutil.copytree(pathlib.Path(__file__).parent.parent, sources,
                        ignore=shutil.ignore_patterns("*.o", "*.so"))
        subprocess.run(["find", self.directory, "-type", "l", "-name", "pgwake_ddl*", "-delete"], check=True)
        subprocess.run(["make", "-s", "-C", sources, "install", f"DESTDIR={self.directory}",
                        f"PG_CONFIG={os.environ.get('PG_CONFIG', 'pg_config')}"], check=True)

    def call(self, program, *arguments):
        subprocess.run([f"{self.bindir}/{program}", "-D", f"{self.directory}/data", *arguments], check=True,
                       stdout=subprocess.DEVNULL, user=self.user, cwd=self.directory)

    def __enter__(self):
        try:
            self.set_up()
        except BaseException:
            shutil.rmtree(self.directory)
            raise
        self.call("pg_ctl", "-w", "-l", f"{self.directory}/log", "start")
        return self

    def set_up(self):
        self.install()
        self.call("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C")
        with open(f"{self.directory}/data/postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(f"listen_addresses = ''\nunix_socket_directories = '{self.directory}'\nfsync = off\n"
                       f"max_locks_per_transaction = 512\n{self.settings}\n")

    def __exit__(self, kind, *_):
        if kind is not None:
            print(*self.complaints()[:20], sep="\n", file=sys.stderr)
        self.call("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.directory)

    def session(self, options=""):
        return Session(f"host={self.directory} user=postgres dbname=postgres {options}")

    def standby(self):
        """A copy of this server, which follows it: to be used in a `with` of its own."""
        return Standby(self)

    def complaints(self):
        """What the server logged that must never be: crashes, failed assertions, leaks."""
        sign = re.compile("PANIC|TRAP:|terminated by signal|"
                          "WARNING:.*( leak|leaked|not closed|don't own a lock)")
        with open(f"{self.directory}/log", encoding="utf-8", errors="replace") as log:
            return [line.rstrip() for line in log if sign.search(line)]


class Standby(Server):
    def __init__(self, primary):
        super().__init__()
        self.primary = primary

    def set_up(self):
        self.install()
        subprocess.run([f"{self.bindir}/pg_basebackup", "-R", "-c", "fast", "-U", "postgres", "-h",
                        self.primary.directory, "-D", f"{self.directory}/data"], check=True, user=self.user,
                       cwd=self.directory)
        with open(f"{self.directory}/data/postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(f"unix_socket_directories = '{self.directory}'\n")
