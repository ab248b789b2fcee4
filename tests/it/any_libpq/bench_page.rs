//! The page of `pgwake bench` in a real browser, where one is installed: light and dark, on a phone's width
//! and on a screen's.
#![cfg(feature = "command")]

use crate::common::bench::bench;
use crate::common::{PATIENCE, say_loudly, server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Looks at the page from within.
const SCRIPT: &str = include_str!("bench_page.js");

const WIDTHS: [u32; 2] = [400, 1400];

/// Chromium or a kin of it; says so when there is none.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]);
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = directories.flat_map(|directory| names.map(|name| directory.join(name)));
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        say_loudly("SKIPPED: the page in a browser: there is no chromium; see `apt-get install chromium`");
    }
    found
}

/// What the console says of pages, each with its width: one text for each message.
fn console(browser: &Path, directory: &Path, pages: &[(&str, u32)], is_dark: bool) -> Vec<String> {
    let mut frames = "<!doctype html><meta name=\"color-scheme\" content=\"light dark\">".to_string();
    let script = format!("<script>{{{SCRIPT}}}</script></body>");
    for (i, (page, width)) in pages.iter().enumerate() {
        std::fs::write(directory.join(format!("{i}.html")), page.replace("</body>", &script)).unwrap();
        // A window is never as narrow as a phone; a frame is, and has the width that the page goes by.
        let style = format!("width: {width}px; height: 3000px; border: 0");
        frames += &format!("<iframe src=\"{i}.html\" style=\"{style}\"></iframe>");
    }
    std::fs::write(directory.join("frames.html"), frames).unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--window-size=1500,1000", "--enable-logging=stderr", "--v=0", "--dump-dom"]);
    command.args(is_dark.then_some("--force-dark-mode"));
    command.arg(format!("--user-data-dir={}", directory.join("profile").display()));
    command.arg(format!("file://{}", directory.join("frames.html").display()));
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let log = String::from_utf8_lossy(&std::fs::read(directory.join("log")).unwrap()).into_owned();
    let messages = log.lines().filter_map(|line| line.split_once("CONSOLE:")?.1.split_once("] "));
    let messages: Vec<_> = messages.map(|(_, message)| message.to_string()).collect();
    assert!(messages.iter().any(|message| message.contains("LOOKED AT")), "no page was shown: {log}");
    messages
}

/// What the script has looked at, of those messages; and what else there is, which is wrong.
fn sorted(messages: Vec<String>) -> (Vec<Value>, Vec<String>) {
    let (looked, wrong): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| message.starts_with("\"LOOKED AT "));
    let json = |message: &String| {
        let json = message.strip_prefix("\"LOOKED AT ")?.split_once("\", source:")?.0;
        serde_json::from_str(json).ok()
    };
    (looked.iter().filter_map(json).collect(), wrong)
}

/// Measures, and looks at the page in all four ways.
fn reads_well(arguments: &[&str], charts: &[&str]) {
    let Some(browser) = browser() else { return };
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("a.html");
    let [socket, ..] = crate::common::transports(server());
    let output = bench(&socket.1, &[arguments, &["--html", html.to_str().unwrap()]].concat()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(&html).unwrap();
    let mut colours = Vec::new();
    for is_dark in [false, true] {
        let pages = WIDTHS.map(|width| (&*page, width));
        let (looked, wrong) = sorted(console(&browser, directory.path(), &pages, is_dark));
        assert_eq!(wrong, Vec::<String>::new(), "dark: {is_dark}");
        let widths: Vec<_> = looked.iter().map(|page| page["width"].clone()).collect();
        assert!(WIDTHS.iter().all(|width| widths.contains(&json!(width))), "{widths:?}");
        for page in looked {
            assert_eq!((&page["dark"], &page["charts"]), (&json!(is_dark), &json!(charts)));
            colours.push(page["colours"].clone());
        }
    }
    for (light, dark) in (0..3).map(|i| (&colours[0][i], &colours[2][i])) {
        assert_ne!(light, dark);
    }
}

#[test]
fn the_page_of_latency() {
    let arguments = [
        "latency",
        "--interval",
        "200us",
        "--count",
        "500",
        "--rounds",
        "2",
        "--spin",
        "50us",
        "--spin-adaptive",
        "0.1",
    ];
    let charts = ["Distribution of latency", "Timeline"];
    reads_well(&[&arguments[..], &["--transport", "unix,tcp"]].concat(), &charts.repeat(2));
}

#[test]
fn the_page_of_throughput() {
    let arguments = ["throughput", "--count", "500", "--for", "20ms", "--rounds", "1"];
    reads_well(&arguments, &["Throughput by payload", "CPU by payload"].repeat(2));
}

#[test]
fn the_page_of_scale() {
    let arguments = ["scale", "--count", "20", "--rounds", "1", "--steps", "1,2,5,10,20,40"];
    let (latency, cost, memory) = ("Latency", "Cost", "Memory");
    let charts = [latency, cost, memory, latency, cost, "After a reconnect", latency, cost, memory];
    reads_well(&arguments, &charts);
}

#[test]
fn the_page_of_writers() {
    let arguments =
        ["writers", "--seconds", "0.05", "--rounds", "1", "--clients", "1,4,16", "--rows", "1,10"];
    reads_well(&arguments, &["Writes by clients"; 2]);
}

#[test]
fn what_is_wrong_with_a_page_is_found() {
    let Some(browser) = browser() else { return };
    let directory = tempfile::tempdir().unwrap();
    let page = |body: &str| {
        let line = "<section><svg><path class=\"line\" d=\"M0 0H9\"/></svg></section>";
        format!("<!doctype html><body style=\"background: #fff\">{line}{body}</body>")
    };
    let plot = |inside: &str| {
        let legend = "<ul class=\"legend\"><li><svg><path class=\"s1\"/></svg>a</li></ul>";
        format!(
            "<figure><h3>a</h3>{legend}<svg class=\"plot\" width=\"50\" height=\"50\">{inside}</svg></figure>"
        )
    };
    let samples = [
        ("<p style=\"width: 2000px\">wide</p>".to_string(), "the page is"),
        ("<p style=\"color: #eee\">pale</p>".into(), "\"pale\" has a contrast of 1."),
        (plot(""), "nothing is drawn"),
        (plot("<path class=\"line s1\" d=\"M1 1\"/>"), "a mark of no size"),
        (plot("<path class=\"line s1\" d=\"M1 1H900\"/>"), "or outside"),
        (plot("<path class=\"line s1\" d=\"M1 1H40\"/>"), "\"line s1\" has a contrast of 0.0"),
        (plot("<path class=\"line s2\" d=\"M1 1H40\"/>"), "no line is s1"),
        (plot("<text y=\"20\">one</text><text y=\"24\">two</text>"), "lies on"),
        (plot("<text y=\"20\" style=\"font-size: 6px\">one</text>"), "small letters"),
        ("<script>throw new Error('broken')</script>".into(), "Uncaught Error: broken"),
    ];
    let pages: Vec<_> = samples.iter().map(|(body, _)| page(body)).collect();
    let pages: Vec<_> = pages.iter().map(|page| (&**page, 400)).collect();
    let (_, wrong) = sorted(console(&browser, directory.path(), &pages, false));
    for (i, (_, found)) in samples.iter().enumerate() {
        let mut of_page = wrong.iter().filter(|message| message.contains(&format!("/{i}.html")));
        assert!(of_page.any(|message| message.contains(found)), "{found}: {wrong:#?}");
    }
    let fine = page("<p>fine</p>");
    let (_, wrong) = sorted(console(&browser, directory.path(), &[(&fine, 400)], false));
    assert_eq!(wrong, Vec::<String>::new());
}
