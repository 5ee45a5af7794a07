//! Which engine was the fastest for which convolution, kept in a file from run to run.
//!
//! The file is a cache: what it does not say, or says badly, is timed again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::ConvolutionKey;

/// A choice among the candidates of a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// Its place in the list that cuDNN's heuristics give.
    pub(super) engine_index: usize,
    pub(super) microseconds: f64,
}

/// The choices for one version of cuDNN, one kind of device and one precision.
pub(super) struct AutotuneCache {
    file: Option<PathBuf>,
    known: HashMap<String, Choice>,
}

impl AutotuneCache {
    /// Those of the file `cudnn-NAME.txt` in a folder, if there is one.
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

    /// Remembers a choice, and writes the file beside itself first. A file that cannot be written costs the next start
    /// some seconds, nothing else.
    pub(super) fn insert(&mut self, key: &ConvolutionKey, choice: Choice) {
        self.known.insert(name(key), choice);
        let Some(file) = &self.file else { return };
        let mut lines: Vec<(&String, &Choice)> = self.known.iter().collect();
        lines.sort_by_key(|(name, _)| *name);
        let mut text = String::new();
        for (name, Choice { engine_index, microseconds }) in lines {
            let _ = writeln!(text, "{name}\t{engine_index}\t{microseconds:.1}");
        }
        // Of another process that writes too, the last one stays.
        let beside = file.with_extension(format!("{}.tmp", std::process::id()));
        let written = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| std::fs::write(&beside, text));
        let _ = written.and_then(|()| std::fs::rename(&beside, file));
    }

    /// Every choice as a line for people, by name.
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
    fn choices_outlive_the_process_and_bad_lines_are_left_out() {
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
            "of another version"
        );
        again.insert(&key(2), choice);
        let file = again.file.clone().unwrap();
        let text = std::fs::read_to_string(&file).unwrap().replace("\t7\t", "\tx\t");
        std::fs::write(&file, text + "half a li").unwrap();
        assert_eq!(AutotuneCache::open(Some(&folder), "9.19 H100/bf16").get(&key(1)), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
