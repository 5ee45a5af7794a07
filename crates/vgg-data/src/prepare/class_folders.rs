//! Class folders, `train/<class>/*` and `val/<class>/*`.

use std::path::Path;

use super::{Class, Entry, Source};
use crate::error::at;
use crate::folder::Folder;
use crate::{Error, Result, Split};

/// A data set in class folders.
pub struct ClassFolders {
    classes: Vec<Class>,
    splits: Vec<(Split, Folder)>,
    inputs: Vec<String>,
}

impl ClassFolders {
    /// Scans the folders; `val` need not be there.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Layout`].
    pub fn open(root: &Path) -> Result<ClassFolders> {
        let mut splits = vec![(Split::Train, Folder::open(root, Split::Train)?)];
        if root.join(Split::Val.name()).is_dir() {
            splits.push((Split::Val, Folder::open(root, Split::Val)?));
        }
        let class = |name: &String| Class { name: name.clone(), words: None, ilsvrc2012_id: None };
        let classes = splits[0].1.classes.iter().map(class).collect();
        let files = splits.iter().flat_map(|(_, folder)| &folder.samples);
        let inputs = files.map(|sample| sample.path.clone()).collect();
        Ok(ClassFolders { classes, splits, inputs })
    }
}

impl Source for ClassFolders {
    fn name(&self) -> String {
        let name = self.splits[0].1.root.file_name().unwrap_or_default();
        format!("{}, class folders", name.to_string_lossy())
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn splits(&self) -> Vec<Split> {
        self.splits.iter().map(|(split, _)| *split).collect()
    }

    fn root(&self) -> &Path {
        &self.splits[0].1.root
    }

    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn entries(&self, split: Split, consume: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let Some((_, folder)) = self.splits.iter().find(|(own, _)| *own == split) else { return Ok(()) };
        for sample in &folder.samples {
            let path = folder.root.join(&sample.path);
            let bytes = std::fs::read(&path).map_err(at("read", &path))?;
            if bytes.len() as u64 != sample.bytes {
                return Err(Error::Source {
                    path,
                    reason: "it has changed since the folder was scanned".into(),
                });
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            consume(Entry {
                path,
                source: sample.path.clone(),
                stem,
                target: sample.target,
                bytes,
                boxes: None,
            })?;
        }
        Ok(())
    }

    fn expected(&self, _: Split) -> Option<Vec<u64>> {
        None
    }

    fn may_miss(&self) -> bool {
        false
    }
}
