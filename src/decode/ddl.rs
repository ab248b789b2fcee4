//! A DDL event as the schema `pgwake` writes it, in JSON, taken apart; see `install/README.md`.

use super::object::{Members, elements, unescape};
use crate::event::{Ddl, DdlPhase, DdlTarget, SessionId};

/// A DDL event that owns its data: DDL is rare.
#[derive(Debug, Default)]
pub(crate) struct DdlCommand {
    phase: Option<DdlPhase>,
    tag: String,
    targets: Vec<DdlTarget>,
    depth: u32,
    temp: bool,
    xid: Option<u64>,
    user: String,
    app: String,
    /// Where the whole of it lies when it did not fit into a notification.
    pub(crate) reference: Option<u64>,
    json: String,
}

impl DdlCommand {
    /// Takes an event apart; `None` when the text is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut command = DdlCommand { json: text.to_string(), ..DdlCommand::default() };
        for (name, value) in Members::of(text) {
            let value = &text[value];
            match name {
                "phase" if value == "\"before\"" => command.phase = Some(DdlPhase::Before),
                "phase" if value == "\"after\"" => command.phase = Some(DdlPhase::After),
                "tag" => command.tag = string(value),
                "targets" => command.targets = elements(value).map(target).collect(),
                "depth" => command.depth = value.parse().unwrap_or_default(),
                "temp" => command.temp = value == "true",
                "xid" => command.xid = value.parse().ok(),
                "user" => command.user = string(value),
                "app" => command.app = string(value),
                "reference" => command.reference = value.parse().ok(),
                _ => {}
            }
        }
        (command.phase.is_some() && !command.tag.is_empty()).then_some(command)
    }

    /// The event as it is delivered.
    pub(crate) fn as_event<'a>(&'a self, session: SessionId, db: &'a str) -> Ddl<'a> {
        Ddl {
            session,
            db,
            phase: self.phase.unwrap_or(DdlPhase::After),
            tag: &self.tag,
            targets: &self.targets,
            depth: self.depth,
            temp: self.temp,
            xid: self.xid,
            user: &self.user,
            app: &self.app,
            json: &self.json,
        }
    }
}

fn target(text: &str) -> DdlTarget {
    let mut target = DdlTarget::default();
    for (name, value) in Members::of(text) {
        let value = &text[value];
        match name {
            "role" => target.role = string(value),
            "type" => target.object_type = string(value),
            "schema" => target.schema = given(value),
            "name" => target.name = given(value),
            "column" => target.column = given(value),
            "identity" => target.identity = string(value),
            // The server's JSON has it as text.
            "oid" => target.oid = value.trim_matches('"').parse().unwrap_or_default(),
            "subid" => target.subid = value.parse().unwrap_or_default(),
            "exists" => target.exists = value == "true",
            _ => {}
        }
    }
    target
}

fn given(json: &str) -> Option<String> {
    let mut text = String::new();
    unescape(json, &mut text).then_some(text)
}

fn string(json: &str) -> String {
    given(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ddl_event_is_taken_apart() {
        let text = r#"{"app": "psql", "tag": "DROP TABLE", "xid": 9, "temp": false, "user": "me", "depth": 1,
            "phase": "after", "targets": [{"role": "target", "type": "table", "schema": "public", "name": "t",
            "column": null, "identity": "public.t", "oid": "5", "subid": 0, "exists": false},
            {"role": "cascade", "type": "view", "identity": "public.\"V\"", "oid": 6}]}"#;
        let command = DdlCommand::read(text).unwrap();
        let told = command.as_event(SessionId(1), "app");
        assert_eq!((told.phase, told.tag, told.depth, told.temp), (DdlPhase::After, "DROP TABLE", 1, false));
        assert_eq!((told.xid, told.user, told.app), (Some(9), "me", "psql"));
        let [table, view] = told.targets else { panic!("{told:?}") };
        assert_eq!((table.role.as_str(), table.object_type.as_str(), table.oid), ("target", "table", 5));
        assert_eq!((table.schema.as_deref(), table.name.as_deref()), (Some("public"), Some("t")));
        assert_eq!((&table.column, table.exists), (&None, false));
        assert_eq!((view.role.as_str(), view.identity.as_str()), ("cascade", "public.\"V\""));
    }

    #[test]
    fn what_is_no_ddl_event_is_not_taken_for_one() {
        for bad in ["", "hello", "{}", r#"{"phase":"after"}"#, r#"{"phase":"later","tag":"DROP TABLE"}"#] {
            assert!(DdlCommand::read(bad).is_none(), "{bad}");
        }
    }
}
