//! Settings in TOML: raw types that say what a file may contain, and their lowering to plans.
//!
//! No key is passed over in silence, and nothing scientific has a default but the width and head of the paper.

mod lower;
mod overrides;
mod raw;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vgg_experiment::RunPlan;

pub(crate) use tables::{ALL, Profile, TableFile, TrainedTables, embedded};

/// Settings that cannot be used: unknown keys, wrong types, values that contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SettingsError(pub(crate) String);

/// A run from a file: its plan and, if the file names one, its data set.
pub(crate) struct RunSettings {
    pub(crate) plan: RunPlan,
    pub(crate) dataset: Option<PathBuf>,
}

/// A recipe for one run that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Preset {
    /// The paper's (section 3.1).
    Paper,
    /// torchvision's, which needs no start from a shallower network.
    Torchvision,
}

impl Preset {
    /// The file as it is.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Preset::Paper => include_str!("../../experiments/run-paper.toml"),
            Preset::Torchvision => include_str!("../../experiments/run-torchvision.toml"),
        }
    }
}

/// Reads a run from a file, with `set` (each `key.path=value`) in the place of what the file says.
pub(crate) fn read_run(path: &Path, set: &[String]) -> Result<RunSettings> {
    let name = path.file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    run(&name, &read(path)?, set).with_context(|| path.display().to_string())
}

/// Reads a run from a preset.
pub(crate) fn preset_run(preset: Preset, set: &[String]) -> Result<RunSettings> {
    let name = format!("{preset:?}").to_lowercase();
    run(&name, preset.text(), set).with_context(|| format!("preset {name}"))
}

fn run(name: &str, text: &str, set: &[String]) -> Result<RunSettings> {
    let raw = overrides::parse::<raw::RunFile>(text, &overrides::table(set)?)?;
    let dataset = raw.data.dataset.clone();
    let plan = lower::run(name, raw, lower::From::Files)?;
    plan.check()?;
    Ok(RunSettings { plan, dataset })
}

/// Reads a table, or all, from a file.
pub(crate) fn read_table(path: &Path, name: &str, set: &[String]) -> Result<TableFile> {
    tables::parse(&read(path)?, name, set).with_context(|| path.display().to_string())
}

/// Reads a table, or all, that come with the program.
pub(crate) fn embedded_table(name: &str, profile: Profile, set: &[String]) -> Result<TableFile> {
    let (file, text) = embedded(name, profile)?;
    tables::parse(text, name, set).with_context(|| file.to_owned())
}

fn read(path: &Path) -> Result<String> {
    let not_text = |e| SettingsError(format!("{} is no text: {e}", path.display()));
    Ok(String::from_utf8(vgg_files::read_bytes(path)?).map_err(not_text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_sound() {
        for preset in [Preset::Paper, Preset::Torchvision] {
            let plan = preset_run(preset, &["network.config=E".to_owned()]).unwrap().plan;
            assert_eq!((plan.network.config.name(), plan.batch), ("E", 256));
        }
    }
}
