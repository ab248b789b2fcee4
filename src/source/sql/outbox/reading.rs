//! How far the outbox is read on this connection, page by page.

use super::pace::Pace;
use super::page::{Page, Position, Row};
use super::statements as sql;
use crate::pq::QueryResult;
use crate::session::Command;
use crate::source::sql::link::Link;
use crate::source::sql::statements::{encoding, in_utf8};
use crate::source::sql::tag::{OutboxRequest, Tag};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Reading {
    /// As the server calls it, in its encoding.
    consumer: Vec<u8>,
    /// The consumer is open on this connection.
    pub(super) is_open: bool,
    /// Where the next page begins.
    position: Position,
    pub(super) pace: Pace,
    page: Option<Page>,
    /// On the next page is something that UTF-8 has not: it is read as the bytes that it has.
    is_raw: bool,
    /// The connection has the statement that reads.
    is_prepared: bool,
}

impl Reading {
    pub(super) fn new(fallback: Duration) -> Self {
        Reading {
            consumer: Vec::new(),
            is_open: false,
            position: Position::default(),
            pace: Pace::new(fallback),
            page: None,
            is_raw: false,
            is_prepared: false,
        }
    }

    /// On a new connection. What was read is delivered all the same.
    pub(super) fn connected(&mut self) {
        (self.is_open, self.is_raw, self.is_prepared) = (false, false, false);
    }

    /// Opens the consumer, for these tables, under the caller's name, or the one that the server gave when it
    /// was opened first, which is ASCII.
    pub(super) fn open(&self, link: &mut Link, name: Option<&str>, tables: &str, from_start: bool) {
        let generated = String::from_utf8_lossy(&self.consumer);
        let name = in_utf8(name.unwrap_or(&generated));
        let from_start = if from_start { "true" } else { "false" };
        let tag = Tag::Outbox(OutboxRequest::Open);
        link.send(tag, Some(sql::OPEN), &[&name, tables, from_start].map(str::as_bytes));
    }

    /// The consumer is open. `true`: it begins where the database says. One that was open for other tables
    /// goes on from where it is. `None` for rows that say nothing of it.
    pub(super) fn opened(&mut self, rows: Option<&QueryResult>, now: Instant) -> Option<bool> {
        let (consumer, position) = (rows?.value(0, 0)?, rows?.value(0, 1)?);
        let begins = !std::mem::replace(&mut self.is_open, true);
        if begins {
            (self.consumer, self.position) = (consumer.to_vec(), Position::of(position));
            self.page = None;
        }
        self.pace.begin(now);
        Some(begins)
    }

    pub(super) fn read(&mut self, link: &mut Link, now: Instant) {
        self.pace.asked(now);
        let position = self.position.to_string();
        let encoding = encoding(link.is_converted() && !self.is_raw);
        let parameters = [&self.consumer, position.as_bytes(), encoding];
        let (name, sql) = (sql::READ_NAME, sql::READ);
        // An attempt that failed may have prepared it or not.
        let deallocate = Command::Run { sql: sql::DEALLOCATE, parameters: &[] };
        let prepare = Command::Prepare { name, sql, parameters: parameters.len() };
        let prepare = [deallocate, prepare].into_iter().filter(|_| !self.is_prepared);
        let run = Command::RunPrepared { name, parameters: &parameters };
        link.session.send(Tag::Outbox(OutboxRequest::Read), prepare.chain([run]));
    }

    /// A page is at hand; `false` for rows that are none.
    pub(super) fn page_read(&mut self, rows: Option<QueryResult>, now: Instant) -> bool {
        self.page = rows.and_then(|rows| Page::new(rows, &self.position));
        if self.page.is_some() {
            (self.is_prepared, self.is_raw) = (true, false);
            self.pace.answered(now);
        }
        self.page.is_some()
    }

    /// Reads the same page as the bytes that it has; `false` if it was read so.
    pub(super) fn read_raw(&mut self, link: &mut Link, now: Instant) -> bool {
        let may_help = link.is_converted() && !self.is_raw;
        if may_help {
            self.is_raw = true;
            self.pace.put_off(now);
        }
        may_help
    }

    /// The server refused to read: not before then.
    pub(super) fn put_off(&mut self, until: Instant) {
        self.is_prepared = false;
        self.pace.put_off(until);
    }

    pub(super) fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// The next row of the page at hand, and the position behind it.
    pub(super) fn next_row(&mut self) -> Option<(Row, Position)> {
        self.page.as_mut()?.next_row()
    }

    /// The caller has all of the page. Gives how many changes it had, and the position behind it, if that is
    /// another.
    pub(super) fn end_page(&mut self, now: Instant) -> Option<(usize, Position)> {
        let page = self.page.take()?;
        self.pace.page_ended(now, page.advice, page.changes);
        if self.position == page.end {
            return None;
        }
        self.position = page.end.clone();
        Some((page.changes, page.end))
    }

    pub(super) fn acknowledge(&self, link: &mut Link, position: &str) {
        let tag = Tag::Outbox(OutboxRequest::Acknowledge);
        link.send(tag, Some(sql::ACKNOWLEDGE), &[&self.consumer, position.as_bytes()]);
    }
}
