//! The links within our pages lead somewhere: to a file that there is, and to a heading in it.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The pages, from the root of the sources.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(format!("{ROOT}/docs")).unwrap();
    let docs = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    let others = ["README.md", "CHANGELOG.md", "src/install/README.md", "benches/README.md"];
    docs.filter(|path| path.ends_with(".md")).chain(others.map(String::from)).collect()
}

/// A page without its blocks and what is in backquotes.
fn prose(page: &str) -> String {
    let mut is_block = false;
    let lines = page.lines().filter(|line| {
        is_block ^= line.starts_with("```");
        !is_block
    });
    lines.map(|line| line.split('`').step_by(2).collect::<String>() + "\n").collect()
}

/// Where its links go.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_string())).collect()
}

/// The names that GitHub gives to the headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let mut is_block = false;
    let headings = page.lines().filter(|line| {
        is_block ^= line.starts_with("```");
        !is_block && line.starts_with('#')
    });
    headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What is wrong with a link of a page; nothing with one that leaves this place.
fn fault(path: &str, text: &str, link: &str) -> Option<String> {
    if link.contains("://") {
        return None;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let (target, text) = if file.is_empty() {
        (PathBuf::from(path), text.to_string())
    } else {
        let target = Path::new(path).parent()?.join(file);
        if !Path::new(ROOT).join(&target).exists() {
            return Some(format!("{path}: {link}: there is no such file"));
        }
        let text = fs::read_to_string(Path::new(ROOT).join(&target)).unwrap_or_default();
        (target, text)
    };
    let is_there = heading.is_empty() || anchors(&text).iter().any(|anchor| anchor == heading);
    (!is_there).then(|| format!("{path}: {link}: {} has no such heading", target.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let mut links_seen = 0;
    let mut faults = Vec::new();
    for path in pages() {
        let text = fs::read_to_string(format!("{ROOT}/{path}")).unwrap();
        for link in links(&text) {
            links_seen += 1;
            faults.extend(fault(&path, &text, &link));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(links_seen > 0, "no link was found");
}

/// A reader of the README finds each page of docs/.
#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = links(&fs::read_to_string(format!("{ROOT}/README.md")).unwrap());
    for page in pages().iter().filter(|page| page.starts_with("docs/")) {
        assert!(readme.contains(page), "{page}");
    }
}

#[test]
fn a_dead_link_is_found_and_a_good_one_is_not() {
    let page =
        "# One, two: `three`\n[a](#one-two-three) `[b](gone.md)`\n```sh\n# [c](gone.md)\n```\n[d](e.md)\n";
    assert_eq!(links(page), ["#one-two-three", "e.md"]);
    assert_eq!(anchors(page), ["one-two-three"]);
    for good in ["#one-two-three", "https://example.org/", "links.rs", "../../../README.md#install"] {
        assert_eq!(fault("tests/it/any_libpq/page.md", page, good), None);
    }
    for dead in ["#two", "gone.md", "../../../README.md#gone", "README.md"] {
        assert!(fault("tests/it/any_libpq/page.md", page, dead).is_some(), "{dead}");
    }
}
