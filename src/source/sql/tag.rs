//! What was asked of the server: the tag that a request is sent with, and that its answer brings back.

use crate::event::{Channel, TaskId};

/// Who asked, and what for. A new reader has a variant here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tag {
    Listen(ListenRequest),
    Send(SendRequest),
    SelfTest(SelfTestRequest),
    Outbox(OutboxRequest),
    Ddl(DdlRequest),
    Run(RunRequest),
    Poll(TaskId, PollRequest),
}

/// LISTEN or UNLISTEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) listen: bool,
    pub(super) channel: Channel,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListenRequest {
    /// Something that holds for the connection is set; with rows, they say who the server's process is.
    Setting,
    Subscription(Subscription),
}

/// How something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Notify,
    Publish,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Verb::Notify => "notify",
            Verb::Publish => "publish",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SendRequest {
    pub(super) verb: Verb,
    pub(super) channel: Channel,
    /// How long the payload is.
    pub(super) bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SelfTestRequest {
    Listen,
    /// Nothing, when the notification has been sent long ago: a server sends what it has before it answers.
    Over,
    Unlisten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutboxRequest {
    Settings,
    Ensure,
    Look,
    Open,
    Read,
    Fetch,
    Convert,
    Acknowledge,
    Rotate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DdlRequest {
    Watch,
    Look,
    Fetch,
    Convert,
}

/// For a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunRequest {
    pub(super) task: TaskId,
    pub(super) step: RunStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunStep {
    Setting,
    Enter,
    Ask,
    Begin,
    Job,
    End,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollRequest {
    /// Opens the cursor.
    Open,
    Query,
    /// Keeps its position; with the number that the caller acknowledged, if it did.
    Keep(Option<u64>),
    /// Ends the transaction of a batch.
    End,
    RollBack,
    /// The poll is no more.
    Close,
}

impl Tag {
    /// It may take as long as somebody's query does.
    pub(super) fn takes_its_time(&self) -> bool {
        matches!(
            self,
            Tag::Poll(_, PollRequest::Open | PollRequest::Query | PollRequest::End)
                | Tag::Run(RunRequest { step: RunStep::Job, .. })
        )
    }

    /// Its answer comes before the next notification: what one referred to, or its text in UTF-8.
    pub(super) fn comes_first(&self) -> bool {
        matches!(
            self,
            Tag::Outbox(OutboxRequest::Fetch | OutboxRequest::Convert)
                | Tag::Ddl(DdlRequest::Fetch | DdlRequest::Convert)
        )
    }
}
