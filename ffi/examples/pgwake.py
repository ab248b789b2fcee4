"""pgwake through ctypes: what the two examples beside it share. It needs no building.

The loader finds libpgwake.so.0 where `make install` puts it; PGWAKE_LIBRARY names it elsewhere.
"""

import ctypes as c
import os
import select

LISTENING, NOTIFICATION, GAP, DISCONNECTED, FAILED, COMMAND_FAILED, SENT, CHANGE, DDL, ACKNOWLEDGED = range(1, 11)
SCHEMA, BEGIN, COMMIT, PREPARE, ROLLBACK, MESSAGE, TICK, ROWS = range(11, 19)


class Event(c.Structure):
    """The front of `pgwake_event`; valid until the next event is taken. `payload_bytes` of a message are any bytes."""

    _fields_ = [("struct_size", c.c_uint32), ("type", c.c_int32), ("session", c.c_int32), ("pid", c.c_int32),
                ("channel_bytes", c.c_char_p), ("channel_len", c.c_size_t),
                ("payload_start", c.c_void_p), ("payload_len", c.c_size_t),
                ("folded", c.c_uint64), ("own", c.c_int32), ("backend_pid", c.c_int32),
                ("db", c.c_char_p), ("db_len", c.c_size_t), ("host", c.c_char_p), ("host_len", c.c_size_t),
                ("server_version", c.c_char_p), ("server_version_len", c.c_size_t),
                ("channels", c.POINTER(c.c_char_p)), ("channels_len", c.c_size_t),
                ("message_bytes", c.c_char_p), ("message_len", c.c_size_t)]
    # By its length: a c_char_p would end at the first NUL.
    payload_bytes = property(lambda self: c.string_at(self.payload_start or b"", self.payload_len))
    channel = property(lambda self: (self.channel_bytes or b"").decode())
    payload = property(lambda self: self.payload_bytes.decode())
    message = property(lambda self: (self.message_bytes or b"").decode())


_lib = c.CDLL(os.environ.get("PGWAKE_LIBRARY", "libpgwake.so.0"))
_lib.pgwake_new.restype, _lib.pgwake_new.argtypes = c.c_void_p, [c.c_void_p]
_lib.pgwake_error.restype, _lib.pgwake_error.argtypes = c.c_char_p, [c.c_void_p]
_lib.pgwake_connect.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p]
_lib.pgwake_listen.argtypes = [c.c_void_p, c.c_int, c.c_char_p]
_lib.pgwake_next.argtypes = [c.c_void_p, c.c_int, c.POINTER(c.POINTER(Event))]
_lib.pgwake_fd.argtypes = _lib.pgwake_close.argtypes = [c.c_void_p]


class Events:
    """An event loop: connect, listen, and iterate over what is there now, or over `waiting()` for ever."""

    def __init__(self):
        self._handle = _lib.pgwake_new(None)

    def _checked(self, status):
        if status < 0:
            raise RuntimeError(_lib.pgwake_error(self._handle).decode())
        return status

    def connect(self, conninfo):
        return self._checked(_lib.pgwake_connect(self._handle, conninfo.encode(), None))

    def listen(self, db, channel):
        self._checked(_lib.pgwake_listen(self._handle, db, channel.encode()))

    def fileno(self):
        return self._checked(_lib.pgwake_fd(self._handle))

    def __iter__(self):
        event = c.POINTER(Event)()
        while self._checked(_lib.pgwake_next(self._handle, 0, c.byref(event))):
            yield event.contents

    def waiting(self):
        while True:
            yield from self  # first: the descriptor need not tell of what was left inside
            select.select([self], [], [])  # waits in Python, so that Ctrl-C is heard

    def close(self):
        _lib.pgwake_close(self._handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
