//! The autotuning cache: a file with the fastest engine of each convolution.
//!
//! A convolution whose entry is missing or invalid is autotuned again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::ConvolutionKey;

/// The engine chosen for a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// Index in the list of candidates, which is in the order of cuDNN's heuristics.
    pub(super) engine_index: usize,
    pub(super) microseconds: f64,
}

/// The choices for one cuDNN version, GPU model, precision and engine setting.
pub(super) struct AutotuneCache {
    file: Option<PathBuf>,
    known: HashMap<String, Choice>,
}

impl AutotuneCache {
    /// Reads the file `cudnn-NAME.txt` in a folder, if it exists.
    pub(super) fn open(folder: Option<&Path>, name: &str) -> AutotuneCache {
        let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = folder.map(|folder| folder.join(format!("cudnn-{safe}.txt")));
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let known = text.lines().filter_map(parse).collect();
        AutotuneCache { file, known }
    }

    pub(super) fn get(&self, key: &ConvolutionKey) -> Option<Choice> {
        self.known.get(&name(key)).copied()
    }

    /// Adds a choice and replaces the file atomically. If the file cannot be written, the next process
    /// autotunes again, which takes up to a minute.
    pub(super) fn insert(&mut self, key: &ConvolutionKey, choice: Choice) {
        self.known.insert(name(key), choice);
        let Some(file) = &self.file else { return };
        let mut lines: Vec<(&String, &Choice)> = self.known.iter().collect();
        lines.sort_by_key(|(name, _)| *name);
        let mut text = String::new();
        for (name, Choice { engine_index, microseconds }) in lines {
            let _ = writeln!(text, "{name}\t{engine_index}\t{microseconds:.1}");
        }
        // If several processes write the file, the last one wins.
        let beside = file.with_extension(format!("{}.tmp", std::process::id()));
        let written = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| std::fs::write(&beside, text));
        let _ = written.and_then(|()| std::fs::rename(&beside, file));
    }

    /// All choices with the names of their convolutions, sorted by name.
    pub(super) fn describe(&self) -> Vec<(String, Choice)> {
        let mut all: Vec<(String, Choice)> =
            self.known.iter().map(|(name, choice)| (name.clone(), *choice)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

fn name(key: &ConvolutionKey) -> String {
    let ConvolutionKey { pass, n, h, w, c, k, r, pad } = key;
    format!("{pass:?} {n}x{h}x{w} {c}->{k} {r}x{r} pad {pad}")
}

fn parse(line: &str) -> Option<(String, Choice)> {
    let mut parts = line.split('\t');
    let (name, engine_index, microseconds) = (parts.next()?, parts.next()?, parts.next()?);
    Some((
        name.to_owned(),
        Choice { engine_index: engine_index.parse().ok()?, microseconds: microseconds.parse().ok()? },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::ConvolutionPass;

    #[test]
    fn choices_persist_and_invalid_lines_are_ignored() {
        let folder = std::env::temp_dir().join(format!("vgg-choices-{}", std::process::id()));
        let key =
            |n| ConvolutionKey { pass: ConvolutionPass::GradInput, n, h: 8, w: 8, c: 8, k: 16, r: 3, pad: 1 };
        let choice = Choice { engine_index: 7, microseconds: 12.5 };
        AutotuneCache::open(Some(&folder), "9.19 H100/bf16").insert(&key(1), choice);
        let mut again = AutotuneCache::open(Some(&folder), "9.19 H100/bf16");
        assert_eq!(again.get(&key(1)), Some(choice));
        assert_eq!(again.get(&key(2)), None);
        assert_eq!(
            AutotuneCache::open(Some(&folder), "9.20 H100/bf16").get(&key(1)),
            None,
            "the file of another cuDNN version"
        );
        again.insert(&key(2), choice);
        let file = again.file.clone().unwrap();
        let text = std::fs::read_to_string(&file).unwrap().replace("\t7\t", "\tx\t");
        std::fs::write(&file, text + "half a li").unwrap();
        assert_eq!(AutotuneCache::open(Some(&folder), "9.19 H100/bf16").get(&key(1)), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
