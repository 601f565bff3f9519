//! The manual pages in `man/` are the help texts: this test makes them and compares. `CASTKEEP_UPDATE=1` writes them anew.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod cli_support;

use std::path::Path;

/// A help text as a page: headings end in a colon, options are indented by two, their text by six.
fn page(name: &str, help: &str) -> String {
    let mut out = format!(
        ".\\\" Made from `castkeep {}--help` by tests/cli_man.rs.\n.TH {} 1 \"\" \"castkeep {}\"\n.SH NAME\n",
        if name == "castkeep" { String::new() } else { format!("{} ", &name["castkeep-".len()..]) },
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
    );
    let mut lines = help.lines();
    let first = lines.next().unwrap_or_default();
    let summary = first.split_once(": ").map_or(first, |(_, summary)| summary);
    out.push_str(&format!("{} \\- {}\n", escape(name), escape(summary)));
    let mut in_list = false;
    for line in lines {
        if let Some(usage) = line.strip_prefix("usage: ") {
            out.push_str(&format!(".SH SYNOPSIS\n.B {}\n.SH DESCRIPTION\n", escape(usage)));
        } else if let Some(heading) = line.strip_suffix(':').filter(|l| !l.starts_with(' ')) {
            in_list = matches!(heading, "options" | "commands");
            out.push_str(&format!(".SH {}\n", heading.to_uppercase()));
        } else if line.is_empty() {
            out.push_str(".PP\n");
        } else if in_list && line.starts_with("  ") && !line.starts_with("   ") {
            match line.trim().split_once("  ") {
                Some((name, about)) => {
                    out.push_str(&format!(".TP\n.B {}\n{}\n", escape(name), escape(about.trim())));
                }
                None => out.push_str(&format!(".TP\n.B {}\n", escape(line.trim()))),
            }
        } else if line.starts_with("  ") && !in_list {
            out.push_str(&format!("{}\n.br\n", escape(line.trim())));
        } else {
            out.push_str(&format!("{}\n", escape(line.trim())));
        }
    }
    out
}

fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[test]
fn the_manual_says_what_the_help_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let update = std::env::var_os("CASTKEEP_UPDATE").is_some();
    let mut pages = vec![("castkeep".to_owned(), cli_support::run(&["--help"]).1)];
    for (name, help) in castkeep::cli::help_texts() {
        pages.push((format!("castkeep-{name}"), help));
    }
    for (name, help) in &pages {
        let file = dir.join(format!("{name}.1"));
        let wanted = page(name, help);
        if update {
            std::fs::write(&file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is old: CASTKEEP_UPDATE=1 cargo test --test cli_man",
            file.display()
        );
    }
    let count = std::fs::read_dir(&dir).unwrap().count();
    assert_eq!(count, pages.len(), "a page in man/ has no command");
}
