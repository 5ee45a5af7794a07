//! Settings in TOML files: one run, or the recipe of a table; those that come with the program, and `key.path=value` over either.
//!
//! The types are those of the plans. No key is passed over in silence.

mod overrides;
mod recipe;

use std::path::Path;

use serde_json::Value;

pub use recipe::{ALL_TABLES, Profile, Recipe, TrainedTables, embedded_recipe};

use crate::{Error, Result, RunPlan};

/// A recipe for one run that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The paper's (section 3.1).
    Paper,
    /// torchvision's, which needs no start from a shallower network.
    Torchvision,
}

impl Preset {
    /// All presets by name.
    pub const ALL: [(&str, Preset); 2] = [("paper", Preset::Paper), ("torchvision", Preset::Torchvision)];

    /// The file as it is.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Paper => include_str!("../../experiments/run-paper.toml"),
            Preset::Torchvision => include_str!("../../experiments/run-torchvision.toml"),
        }
    }
}

/// Reads one run from a TOML file, or from the `run.json` of a run, with `set` (each `key.path=value`) in the place of what the file
/// says.
///
/// # Errors
/// [`Error::Settings`] if the file has an unknown key or a value of the wrong type; those of [`RunPlan::check`].
pub fn read_run(path: &Path, set: &[String]) -> Result<RunPlan> {
    let name = path.file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    let text = read(path)?;
    let text = recorded(&text).unwrap_or(text);
    run(&name, &text, set).map_err(|e| e.in_file(&path.display().to_string()))
}

/// Reads one run from a preset.
///
/// # Errors
/// As [`read_run`].
pub fn preset_run(preset: Preset, set: &[String]) -> Result<RunPlan> {
    let name = format!("{preset:?}").to_lowercase();
    run(&name, preset.text(), set).map_err(|e| e.in_file(&format!("preset {name}")))
}

/// Reads one table, or all, from a file.
///
/// # Errors
/// As [`read_run`], and if the file has no such table.
pub fn read_recipe(path: &Path, table: &str, set: &[String]) -> Result<Recipe> {
    recipe::parse(&read(path)?, table, set).map_err(|e| e.in_file(&path.display().to_string()))
}

/// Reads one table, or all, of a recipe that comes with the program.
///
/// # Errors
/// As [`read_recipe`].
pub fn profile_recipe(profile: Profile, table: &str, set: &[String]) -> Result<Recipe> {
    let (file, text) = embedded_recipe(profile, table)?;
    recipe::parse(text, table, set).map_err(|e| e.in_file(file))
}

fn run(name: &str, text: &str, set: &[String]) -> Result<RunPlan> {
    let mut plan: RunPlan = overrides::parse(text, &overrides::table(set)?)?;
    if plan.name.is_empty() {
        plan.name = name.to_owned();
    }
    plan.check()?;
    Ok(plan)
}

/// The settings that a run's `run.json` recorded, as TOML.
fn recorded(text: &str) -> Option<String> {
    let run: Value = serde_json::from_str(text).ok()?;
    toml::to_string(run.get("settings")?).ok()
}

fn read(path: &Path) -> Result<String> {
    let not_text = |e| Error::Plan(format!("{} is not UTF-8 text: {e}", path.display()));
    String::from_utf8(vgg_files::read_bytes(path)?).map_err(not_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_sound() {
        for (_, preset) in Preset::ALL {
            let plan = preset_run(preset, &["network.config=E".to_owned()]).unwrap();
            assert_eq!((plan.network.config.name(), plan.optimizer.batch), ("E", 256));
        }
    }

    #[test]
    fn stages_take_the_place_of_a_column() {
        let set =
            ["network.stages=[[12], [{ filters = 16, kernel = 1 }, 24]]", "network.trainable=[\"fc8\"]"];
        for (_, preset) in Preset::ALL {
            let plan = preset_run(preset, &set.map(str::to_owned)).unwrap();
            let layers = plan.spec(10).unwrap().layers().unwrap();
            let convolutions = layers.iter().filter(|layer| layer.name.starts_with("conv"));
            let found: Vec<_> =
                convolutions.map(|layer| (layer.weight_shape().unwrap()[..3]).to_vec()).collect();
            assert_eq!(found, [vec![12, 3, 3], vec![16, 12, 1], vec![24, 16, 3]]);
            assert_eq!(plan.network.train_layers, Some(vec!["fc8".to_owned()]));
            // As run.json records it, and back to a column.
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
