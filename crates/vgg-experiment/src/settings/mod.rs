//! Settings in TOML for runs and recipes: files, built-in presets and profiles, and `key.path=value`
//! overrides.
//!
//! They deserialise to the plan types. Unknown keys are errors.

mod overrides;
mod recipe;

use std::path::Path;

use serde_json::Value;
use vgg_error::printable;

pub use recipe::{ALL_TABLES, Profile, Recipe, TrainedTables, embedded_recipe};

use crate::{Error, Result, RunPlan};

/// Built-in settings of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The paper's settings (section 3.1).
    Paper,
    /// torchvision's settings, which train deep networks from random weights.
    Torchvision,
}

impl Preset {
    /// All presets by name.
    pub const ALL: [(&str, Preset); 2] = [("paper", Preset::Paper), ("torchvision", Preset::Torchvision)];

    /// The TOML text of the preset.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Paper => include_str!("../../experiments/run-paper.toml"),
            Preset::Torchvision => include_str!("../../experiments/run-torchvision.toml"),
        }
    }
}

/// Reads one run from a TOML file or from the `run.json` of an earlier run. The overrides `set` (each
/// `key.path=value`) take precedence.
///
/// # Errors
/// [`Error::Settings`] if a key is unknown, a value is invalid or [`RunPlan::check`] fails; [`Error::File`]
/// if the file cannot be read.
pub fn read_run(path: &Path, set: &[String]) -> Result<RunPlan> {
    let name = path.file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    let text = read(path)?;
    let text = recorded(&text).unwrap_or(text);
    run(&name, &text, set).map_err(|e| e.in_file(&printable(path).to_string()))
}

/// Reads one run from a preset, with overrides.
///
/// # Errors
/// [`Error::Settings`], as [`read_run`].
pub fn preset_run(preset: Preset, set: &[String]) -> Result<RunPlan> {
    let name = format!("{preset:?}").to_lowercase();
    run(&name, preset.text(), set).map_err(|e| e.in_file(&format!("preset {name}")))
}

/// Reads one table, or all, from a recipe file.
///
/// # Errors
/// Those of [`read_run`]; also [`Error::Settings`] if the file has no such table.
pub fn read_recipe(path: &Path, table: &str, set: &[String]) -> Result<Recipe> {
    recipe::parse(&read(path)?, table, set).map_err(|e| e.in_file(&printable(path).to_string()))
}

/// Reads one table, or all, from a built-in recipe.
///
/// # Errors
/// [`Error::Plan`] if there is no such table; [`Error::Settings`] if an override is invalid.
pub fn profile_recipe(profile: Profile, table: &str, set: &[String]) -> Result<Recipe> {
    let (name, text) = embedded_recipe(profile, table)?;
    recipe::parse(text, table, set).map_err(|e| e.in_file(name))
}

fn run(name: &str, text: &str, set: &[String]) -> Result<RunPlan> {
    let mut plan: RunPlan = overrides::parse(text, &overrides::table(set)?)?;
    if plan.name.is_empty() {
        plan.name = name.to_owned();
    }
    plan.check()?;
    Ok(plan)
}

/// The settings recorded in a run's `run.json`, as TOML.
fn recorded(text: &str) -> Option<String> {
    let run: Value = serde_json::from_str(text).ok()?;
    toml::to_string(run.get("settings")?).ok()
}

fn read(path: &Path) -> Result<String> {
    let not_text = |e| Error::Plan(format!("{} is not UTF-8 text: {e}", printable(path)));
    String::from_utf8(vgg_files::read_bytes(path)?).map_err(not_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        for (_, preset) in Preset::ALL {
            let plan = preset_run(preset, &["network.config=E".to_owned()]).unwrap();
            assert_eq!((plan.network.config.name(), plan.optimizer.batch), ("E", 256));
        }
    }

    #[test]
    fn custom_stages_replace_the_configuration() {
        let set =
            ["network.stages=[[12], [{ filters = 16, kernel = 1 }, 24]]", "network.train_layers=[\"fc8\"]"];
        for (_, preset) in Preset::ALL {
            let plan = preset_run(preset, &set.map(str::to_owned)).unwrap();
            let layers = plan.spec(10).unwrap().layers().unwrap();
            let convolutions = layers.iter().filter(|layer| layer.name.starts_with("conv"));
            let found: Vec<_> =
                convolutions.map(|layer| (layer.weight_shape().unwrap()[..3]).to_vec()).collect();
            assert_eq!(found, [vec![12, 3, 3], vec![16, 12, 1], vec![24, 16, 3]]);
            assert_eq!(plan.network.train_layers, Some(vec!["fc8".to_owned()]));
            // The recorded settings are read back, and can return to a configuration.
            let text = toml::to_string(&plan).unwrap();
            assert_eq!(run("x", &text, &[]).unwrap(), plan);
            let back = run("x", &text, &["network.config=D".to_owned()]).unwrap();
            assert_eq!(back.network.config.name(), "D");
            let both = text.replace("[network]", "[network]\nstages = [[8]]");
            let error = run("x", &both, &[]).unwrap_err().to_string();
            assert!(error.contains("duplicate field `config`"), "{error}");
        }
    }
}
