//! The table of errors on a page of the documentation, and whether what the command says is what it has.

use std::process::Output;

/// What a row of the table says must come.
struct Row {
    sqlstate: String,
    /// Pieces that come in this order.
    says: Vec<String>,
    exit: i32,
}

/// The rows below a heading, by what they are about.
fn rows(heading: &str) -> Vec<(String, Row)> {
    let page = include_str!("../../../docs/errors.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = cells.map(|cells| cells.split('|').map(|cell| plain(cell.trim())).collect::<Vec<_>>());
    rows.skip(1)
        .map(|cells| {
            let [when, sqlstate, says, advice, exit] = cells.try_into().expect("five cells");
            let pieces = says.split('…').chain(advice.split('…')).map(|piece| piece.trim().to_string());
            let says = pieces.filter(|piece| !piece.is_empty()).collect();
            (when, Row { sqlstate, says, exit: exit.parse().expect("a status") })
        })
        .collect()
}

/// As it reads on a page.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Compares what comes with what the page says, and says all that differs at once.
pub(crate) fn hold(heading: &str, situations: Vec<(&str, Output)>) {
    hold_but(heading, situations, &[]);
}

/// The same but for rows that cannot be brought about here.
pub(crate) fn hold_but(heading: &str, situations: Vec<(&str, Output)>, skipped: &[&str]) {
    let mut rows = rows(heading);
    rows.retain(|(when, _)| !skipped.iter().any(|skipped| plain(skipped) == *when));
    let mut faults = Vec::new();
    for (when, output) in situations {
        let text = [output.stdout, output.stderr].concat();
        let text = plain(&String::from_utf8_lossy(&text));
        let status = output.status.code().unwrap_or(-1);
        let Some(place) = rows.iter().position(|(row, _)| *row == plain(when)) else {
            faults.push(format!("no row for: {when}\n  {status}: {text}"));
            continue;
        };
        let (_, row) = rows.swap_remove(place);
        let mut rest = &*text;
        let mut is_missing = |piece: &String| match rest.split_once(piece.as_str()) {
            Some((_, behind)) => {
                rest = behind;
                false
            }
            None => true,
        };
        let missing = row.says.iter().find(|piece| is_missing(piece));
        let has_code = match row.sqlstate.as_str() {
            "" => !text.contains("SQLSTATE"),
            code => text.contains(&format!("(SQLSTATE {code})")),
        };
        // Advice about hosts is only given where it may help.
        let is_off =
            text.contains("check host and port") && !row.says.concat().contains("check host and port");
        let is_one = text.lines().filter(|line| line.starts_with("pgwake: ")).count() <= 1;
        if missing.is_some() || !has_code || is_off || !is_one || status != row.exit {
            faults.push(format!("{when}: {missing:?}, {} expected\n  {status}: {text}", row.sqlstate));
        }
    }
    faults.extend(rows.into_iter().map(|(when, _)| format!("nothing brings this about: {when}")));
    assert!(faults.is_empty(), "{heading}\n{}", faults.join("\n"));
}
