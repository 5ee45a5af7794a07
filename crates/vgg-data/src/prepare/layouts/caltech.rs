//! Caltech-101 and Caltech-256: class folders without splits. The splits are drawn at random.

use std::path::Path;

use super::{FileEntry, Files, classes};
use crate::folder::{folders_of, images_of};
use crate::{Error, KeyedRng, Permutation, Purpose, Result, Split};

/// Subfolders that may hold the class folders.
const INNER: [&str; 2] = ["101_ObjectCategories", "256_ObjectCategories"];

pub(super) fn open(root: &Path, [train, test]: [usize; 2], seed: u64) -> Result<Files> {
    let inner = INNER.into_iter().find(|inner| root.join(inner).is_dir());
    let prefix = inner.map_or(String::new(), |inner| format!("{inner}/"));
    let folder = root.join(inner.unwrap_or_default());
    let names = folders_of(&folder)?;
    let mut splits = [Vec::new(), Vec::new()];
    for (target, class) in names.iter().enumerate() {
        let images = images_of(&folder.join(class))?;
        if images.len() <= train {
            let reason = format!(
                "class {class} has {} images, but needs more than the {train} training images per class",
                images.len()
            );
            return Err(Error::Layout { path: folder, reason });
        }
        let mut stream = KeyedRng::new(seed, 0, target as u64, Purpose::Order);
        let order = Permutation::new(&mut stream, images.len());
        let mut places: Vec<usize> =
            (0..images.len().min(train.saturating_add(test))).map(|place| order.at(place)).collect();
        let (first, rest) = places.split_at_mut(train);
        for (part, split) in [first, rest].into_iter().zip(&mut splits) {
            part.sort_unstable();
            let path = |&image: &usize| format!("{prefix}{class}/{}", images[image]);
            split.extend(part.iter().map(|image| FileEntry::plain(path(image), target as u32)));
        }
    }
    let [train_entries, val] = splits;
    let name = format!("Caltech's folders, {train} and at most {test} images of a class, seed {seed}");
    let splits = vec![(Split::Train, train_entries), (Split::Val, val)];
    Ok(Files::new(&name, root, classes(&names, |_| None), splits))
}
