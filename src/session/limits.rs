//! How much a server may send at once.

/// How much input may come in without a notification or an answer getting complete. A notification has 8 KB
/// at most, a page of changes some megabytes; libpq itself would take any length that a server claims.
///
/// The second read of a message that began behind a notification is not bounded: nobody but libpq knows that
/// it has begun. Nor is what libpq reads because a command that it is given does not go out (`pqSendSome`,
/// fe-misc.c). Both end as soon as the server is slower than we are.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The same for a message of the log, in which a server puts no more than it can have in one piece of memory
/// (`MaxAllocSize`, memutils.h).
pub(super) const LOG_MESSAGE_BYTES_MAX: usize = 1 << 30;
