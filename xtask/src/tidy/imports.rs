//! Which file of a crate imports which: two that import each other are one topic, or one of them is in the wrong place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A module by its path within a crate, such as `["ops", "linear"]`.
type Module = Vec<String>;

/// Pairs of files that import each other by their modules' names, tests apart. What a folder's own `mod.rs` shares with its files does not
/// count.
pub(super) fn mutual() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(crate::root().join("crates"))? {
        let src = entry?.path().join("src");
        let mut files = BTreeMap::new();
        modules(&src, &src, &mut files)?;
        let mut imports: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
        for (module, path) in &files {
            let text = std::fs::read_to_string(path)?;
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let targets = uses(code).into_iter().filter_map(|used| target(module, &used, &files));
            imports.insert(module, targets.filter(|target| *target != module).collect());
        }
        for (module, targets) in &imports {
            for target in targets.iter().filter(|target| *target > module && !target.starts_with(module)) {
                if imports[target].contains(module) {
                    let (a, b) = (files[*module].display(), files[*target].display());
                    faults.push(format!("{a} and {b} import each other"));
                }
            }
        }
    }
    Ok(faults)
}

/// All modules below a folder, with their files.
fn modules(folder: &Path, src: &Path, files: &mut BTreeMap<Module, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            modules(&path, src, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let place = path.with_extension("");
            let mut module: Module =
                place.strip_prefix(src)?.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                module.pop();
            }
            files.insert(module, path);
        }
    }
    Ok(())
}

/// The paths of all `use` items, one for each name.
fn uses(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for item in code.split(';') {
        let Some(line) = item.lines().position(|line| line.trim_start().contains("use ")) else { continue };
        let item = item.lines().skip(line).collect::<Vec<_>>().join(" ");
        let Some((before, path)) = item.split_once("use ") else { continue };
        if before.trim().is_empty() || before.trim().starts_with("pub") {
            expand("", path.trim(), &mut paths);
        }
    }
    paths
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(prefix: &str, path: &str, paths: &mut Vec<String>) {
    let Some((head, body)) = path.split_once('{') else {
        let name = path.split(" as ").next().unwrap_or_default();
        paths.push(format!("{prefix}{}", name.trim()));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let body = body.rsplit_once('}').map_or(body, |(body, _)| body);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, body[start..at].trim(), paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !body[start..].trim().is_empty() {
        expand(&prefix, body[start..].trim(), paths);
    }
}

/// The module whose file a path used in `module` names; none if that is another crate.
fn target<'a>(module: &Module, used: &str, files: &'a BTreeMap<Module, PathBuf>) -> Option<&'a Module> {
    let mut parts: Vec<&str> = used.split("::").collect();
    let mut full: Module = match *parts.first()? {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        _ => return None,
    };
    if matches!(parts[0], "crate" | "self") {
        parts.remove(0);
    }
    while parts.first() == Some(&"super") {
        full.pop();
        parts.remove(0);
    }
    full.extend(parts.into_iter().map(str::to_owned));
    (1..=full.len()).rev().find_map(|len| files.get_key_value(&full[..len])).map(|(found, _)| found)
}
