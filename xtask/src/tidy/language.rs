//! Checks of language: old names, long lines, and figures that several pages quote.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Maximum line lengths of prose in pages and of comments in sources.
const MAX_PROSE: usize = 100;
const MAX_COMMENT: usize = 140;

/// The contents of `xtask/language.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Language {
    terms: Vec<Term>,
    figures: Vec<Figure>,
}

/// An old name that code, settings, flags and pages must not use.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Term {
    old: String,
    new: String,
}

/// A figure that several files quote from one page of results.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    text: String,
    source: String,
    quoted_in: Vec<String>,
}

/// Finds old names, lines that are too long, and quoted figures that differ from their source.
pub(super) fn faults() -> Result<Vec<String>> {
    let path = crate::root().join("xtask/language.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let language: Language = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut faults = Vec::new();
    for file in files()? {
        let text = std::fs::read_to_string(&file)?;
        let name = file.strip_prefix(crate::root())?.display().to_string();
        old_terms(&name, &text, &language.terms, &mut faults);
        long_lines(&name, &text, &mut faults);
    }
    for figure in &language.figures {
        for page in std::iter::once(&figure.source).chain(&figure.quoted_in) {
            let text = std::fs::read_to_string(crate::root().join(page)).with_context(|| page.clone())?;
            if !unwrapped(&text).contains(&figure.text) {
                faults.push(format!("{page} does not contain {:?}; see xtask/language.toml", figure.text));
            }
        }
    }
    Ok(faults)
}

/// Sources, settings and pages tracked by git, without the changelog, which may quote old names.
fn files() -> Result<Vec<PathBuf>> {
    let listed = std::process::Command::new("git").arg("ls-files").current_dir(crate::root()).output()?;
    let names = String::from_utf8(listed.stdout)?;
    let read = |name: &&str| {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("rs" | "toml" | "md" | "py" | "sh" | "cu" | "cuh"))
            && !["xtask/language.toml", "CHANGELOG.md"].contains(name)
    };
    let paths = names.lines().filter(read).map(|name| crate::root().join(name));
    Ok(paths.filter(|path| path.is_file()).collect())
}

fn old_terms(file: &str, text: &str, terms: &[Term], faults: &mut Vec<String>) {
    for (i, line) in text.lines().enumerate() {
        for Term { old, new } in terms.iter().filter(|term| has_word(line, &term.old)) {
            faults.push(format!("{file}:{}: {old} is now {new}", i + 1));
        }
    }
}

/// Whether `line` contains `word` as a whole word.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_part);
        let after = line[at + word.len()..].chars().next().is_some_and(is_part);
        !before && !after
    })
}

/// Checks prose in pages, except tables, links and code, and comments in sources. Pages of results quote
/// program output and are exempt.
fn long_lines(file: &str, text: &str, faults: &mut Vec<String>) {
    let (is_page, is_source) =
        (file.ends_with(".md") && !file.starts_with("docs/results/"), file.ends_with(".rs"));
    let mut in_code = false;
    for (i, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        let length = line.chars().count();
        let free = in_code
            || line.starts_with('|')
            || line.starts_with("    ")
            || line.contains("](")
            || line.contains("http");
        let too_long = is_page && !free && length > MAX_PROSE
            || is_source && line.trim_start().starts_with("//") && length > MAX_COMMENT;
        if too_long {
            faults.push(format!("{file}:{}: {length} columns; wrap the line", i + 1));
        }
    }
}

/// Replaces each run of white space, such as a line break, by one space.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().flat_map(|word| [word, " "]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_match_whole_words_only() {
        assert!(has_word("a one_two b", "one_two") && has_word("--a-b=x", "--a-b"));
        assert!(!has_word("done_two", "one_two") && !has_word("one_twos", "one_two"));
    }

    #[test]
    fn long_prose_fails_and_long_tables_pass() {
        let long = "x ".repeat(60);
        let count = |file: &str, text: &str| {
            let mut faults = Vec::new();
            long_lines(file, text, &mut faults);
            faults.len()
        };
        assert_eq!(count("a.md", &long), 1);
        assert_eq!(count("a.md", &format!("| {long}")), 0);
        assert_eq!(count("a.md", &format!("```\n{long}\n```\n{long}")), 1);
        assert_eq!(count("a.rs", &format!("// {long}{long}")), 1);
        assert_eq!(count("a.rs", &format!("let x = {long}{long}")), 0);
    }
}
