//! Imports between the files of a crate: files must not import each other, and vgg-tensor's modules only
//! lower layers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A module path within a crate, such as `["ops", "linear"]`.
type Module = Vec<String>;

/// Top-level modules of vgg-tensor, from the lowest layer to the highest. A file may import its own module
/// and lower layers only.
const TENSOR_LAYERS: [&[&str]; 9] = [
    &["grad_mode", "shape"],
    &["error"],
    &["config"],
    &["alloc"],
    &["cpu", "cuda"],
    &["tensor"],
    &["ops"],
    &["comm", "step"],
    &["selftest"],
];

/// Pairs of files that import each other, directly, through a re-export or by an inline path; tests are
/// ignored, and so are imports between a `mod.rs` and its submodules.
pub(super) fn mutual() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(crate::root().join("crates"))? {
        let sources = Sources::read(&entry?.path().join("src"))?;
        let mut imports: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
        for (module, code) in &sources.code {
            let paths = uses(code).into_iter().chain(inline_paths(code));
            let targets = paths.filter_map(|path| sources.target(module, &path, 0));
            imports.insert(module, targets.filter(|target| *target != module).collect());
        }
        for (module, targets) in &imports {
            for target in targets.iter().filter(|target| *target > module && !target.starts_with(module)) {
                if imports[target].contains(module) {
                    let (a, b) = (sources.files[*module].display(), sources.files[*target].display());
                    faults.push(format!("{a} and {b} import each other"));
                }
            }
        }
    }
    Ok(faults)
}

/// The source files of a crate.
struct Sources {
    files: BTreeMap<Module, PathBuf>,
    /// Source text without comments and tests.
    code: BTreeMap<Module, String>,
}

impl Sources {
    fn read(src: &Path) -> Result<Sources> {
        let mut files = BTreeMap::new();
        modules(src, src, &mut files)?;
        let mut code = BTreeMap::new();
        for (module, path) in &files {
            let text = std::fs::read_to_string(path)?;
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            code.insert(module.clone(), without_comments(text));
        }
        Ok(Sources { files, code })
    }

    /// The module that defines `path` as used in `module`; `None` for other crates. Follows re-exports.
    fn target(&self, module: &Module, path: &str, depth: usize) -> Option<&Module> {
        let mut parts: Vec<&str> = path.split("::").collect();
        let first = *parts.first()?;
        let mut full: Module = match first {
            "crate" => Vec::new(),
            "self" | "super" => module.clone(),
            _ if self.files.contains_key(&child(module, first)) => module.clone(),
            _ => return None,
        };
        if matches!(first, "crate" | "self") {
            parts.remove(0);
        }
        while parts.first() == Some(&"super") {
            full.pop();
            parts.remove(0);
        }
        while let Some(part) = parts.first().filter(|part| self.files.contains_key(&child(&full, part))) {
            full.push((*part).to_owned());
            parts.remove(0);
        }
        let (found, code) = self.code.get_key_value(&full)?;
        let Some(name) = parts.first().filter(|_| depth < 8) else { return Some(found) };
        let imported = uses(code).into_iter().find(|used| used.rsplit("::").next() == Some(*name));
        let defined = imported.and_then(|used| self.target(found, &used, depth + 1));
        Some(defined.unwrap_or(found))
    }
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Paths in the code that start with `crate`, `super` or `self`, such as `super::Split::Train`.
fn inline_paths(code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_path(c));
    let own = words.filter(|word| ["crate::", "super::", "self::"].iter().any(|own| word.starts_with(own)));
    own.map(|word| word.trim_end_matches(':').to_owned()).collect()
}

/// Imports in vgg-tensor that do not go to a lower layer, including names that `lib.rs` re-exports.
pub(super) fn upward() -> Result<Vec<String>> {
    let src = crate::root().join("crates/vgg-tensor/src");
    let mut files = BTreeMap::new();
    modules(&src, &src, &mut files)?;
    let root = std::fs::read_to_string(src.join("lib.rs"))?;
    let reexported: BTreeMap<String, String> = uses(&root)
        .iter()
        .filter_map(|path| {
            let (module, name) = (path.split("::").next()?, path.rsplit("::").next()?);
            Some((name.to_owned(), module.to_owned()))
        })
        .collect();
    let layer = |module: &str| TENSOR_LAYERS.iter().position(|modules| modules.contains(&module));
    let mut faults = Vec::new();
    for (module, path) in files.iter().filter(|(module, _)| !module.is_empty()) {
        let own = module[0].as_str();
        for name in names_of_crate(&std::fs::read_to_string(path)?, module) {
            let target = reexported.get(&name).unwrap_or(&name);
            if target != own && !matches!((layer(target), layer(own)), (Some(to), Some(from)) if to < from) {
                faults.push(format!("{} imports {target}, which is not below {own}", path.display()));
            }
        }
    }
    Ok(faults)
}

/// Names used after `crate::` in a file, comments excluded, or after the chain of `super::` that leads to the
/// crate root.
fn names_of_crate(text: &str, module: &Module) -> BTreeSet<String> {
    let code = without_comments(text);
    let head =
        |path: &str| -> String { path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let inline = code.split("crate::").skip(1).map(head);
    let of_root = "super::".repeat(module.len());
    let used = uses(&code).into_iter();
    let used = used
        .filter_map(|path| path.strip_prefix("crate::").or_else(|| path.strip_prefix(&of_root)).map(head));
    inline.chain(used).filter(|name| !name.is_empty()).collect()
}

/// Collects all modules below a folder, with their files.
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

/// The paths of all `use` items, one per name.
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

/// Expands `a::{b, c::d}` to `a::b` and `a::c::d`.
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
