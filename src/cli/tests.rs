//! The grammar against what is written about it: the manual page has each command and each option, and no
//! others; and the example of a unit starts a command that there is.

use super::arguments::{Arguments, Subcommand};
use clap::{Command, CommandFactory, Parser};
use std::collections::{BTreeMap, BTreeSet};

const MANUAL: &str = include_str!("../../ffi/man/pgwake.1");

/// Words that a text of the manual page marks as long options.
fn options_of(text: &str) -> BTreeSet<String> {
    let marked = text.lines().filter(|line| line.starts_with('.') && line.contains("Fl -"));
    let words = marked.flat_map(|line| line.split_whitespace());
    words.filter(|word| word.len() > 2).filter_map(|word| word.strip_prefix('-')).map(String::from).collect()
}

/// The options of each command in the manual page; under an empty name those that stand before them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut blocks = MANUAL.split("\n.It Cm ");
    let before = (String::new(), options_of(blocks.next().unwrap()));
    let named = blocks.map(|block| {
        let words = block.lines().next().unwrap().split_whitespace();
        // Behind the name stand its arguments.
        let name: Vec<_> = words.take_while(|word| !["Ar", "Op", "Cm"].contains(word)).collect();
        (name.join(" "), options_of(block.split("\n.El").next().unwrap()))
    });
    [before].into_iter().chain(named).collect()
}

/// The options of each command in the grammar, without those of every command.
fn typed(command: &Command, path: &str, into: &mut BTreeMap<String, BTreeSet<String>>) {
    let own = command.get_arguments().filter(|argument| path.is_empty() || !argument.is_global_set());
    let own = own.filter_map(|argument| argument.get_long()).map(String::from);
    let own = own.filter(|name| path.is_empty() || name != "help").collect();
    into.insert(path.to_string(), own);
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        typed(inner, format!("{path} {}", inner.get_name()).trim(), into);
    }
}

#[test]
fn the_manual_page_has_each_command_and_option_and_no_other() {
    let mut grammar = BTreeMap::new();
    let mut command = Arguments::command();
    command.build();
    typed(&command, "", &mut grammar);
    let manual = documented();
    let handing_over = MANUAL.split("\n.Sh ").find(|section| section.starts_with("HANDING OVER"));
    let handing_over = options_of(handing_over.unwrap());
    let names = |all: &BTreeMap<String, BTreeSet<String>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&manual), names(&grammar), "the manual page's commands, and those of the grammar");
    for (name, options) in &mut grammar {
        // What all take that hand over, and what each measurement does, stands once.
        if options.contains("to") {
            assert!(handing_over.is_subset(options), "{name} lacks options of handing over");
            *options = options.difference(&handing_over).cloned().collect();
        }
        if name.starts_with("bench ") && name != "bench compare" {
            assert!(manual["bench"].is_subset(options), "{name} lacks options of every measurement");
            *options = options.difference(&manual["bench"]).cloned().collect();
        }
        if name != "bench" {
            assert_eq!(manual[name], *options, "the manual page's options of `{name}`, and the grammar's");
        }
    }
}

#[test]
fn the_example_of_a_unit_starts_a_command_that_there_is() {
    let unit = include_str!("../../ffi/systemd/pgwake-listen@.service");
    let started = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let started = started.replace("%I", "jobs").replace("$COMMAND", "work --quietly");
    let Subcommand::Listen(listen) = Arguments::parse_from(started.split(' ')).command else {
        panic!("{started}")
    };
    assert_eq!(
        (listen.channels, listen.exec),
        (vec!["jobs".into()], vec!["work".into(), "--quietly".into()])
    );
}

/// What is written below the help is printed as it stands, and wrapped once more where it is too long.
#[test]
fn what_stands_below_the_help_fits_its_width() {
    let mut command = Arguments::command();
    command.build();
    for inner in command.get_subcommands() {
        let below = inner.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(below.lines().all(|line| line.chars().count() <= 100), "{}: {below}", inner.get_name());
    }
}
