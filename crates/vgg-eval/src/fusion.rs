//! Fusion of the posteriors of several networks (Section 4.4), and merging of the parts of a split.

use std::collections::BTreeSet;
use std::path::Path;

use ndarray::Array2;
use vgg_error::printable;

use crate::posteriors::Origin;
use crate::{Error, Partition, Posteriors, Result};

/// Fuses several networks, each with its own protocol: the mean of their posteriors of the same images.
/// Posteriors that are already fused weigh as much as the number of their networks. An image that one network
/// skipped is skipped. `named` has the file of each, for messages.
///
/// # Errors
/// [`Error::Fusion`] if the posteriors have different images or classes.
pub fn fuse(named: &[(&Path, &Posteriors)]) -> Result<Posteriors> {
    let [(first_path, first), rest @ ..] = named else {
        return Err(Error::Fusion("no posteriors to fuse".into()));
    };
    for (path, other) in rest {
        let against = format!("{} and {}", printable(first_path), printable(path));
        same_origin(&against, first, other)?;
    }
    let everywhere = |path: &&String| named.iter().all(|(_, p)| !p.was_skipped(path));
    let paths: Vec<String> = first.paths.iter().filter(everywhere).cloned().collect();
    let mut sum = Array2::<f64>::zeros((paths.len(), first.values.ncols()));
    let (mut labels, mut all) = (Vec::new(), 0);
    for (file, posteriors) in named {
        let rows: Vec<usize> =
            (0..posteriors.paths.len()).filter(|i| everywhere(&&posteriors.paths[*i])).collect();
        let own: Vec<&String> = rows.iter().map(|row| &posteriors.paths[*row]).collect();
        if let Some((i, _)) = own.iter().zip(&paths).enumerate().find(|(_, (a, b))| *a != b) {
            let (a, b, file) = (&paths[i], own[i], printable(file));
            return Err(Error::Fusion(format!("{file} has {b} where {} has {a}", printable(first_path))));
        }
        if own.len() != paths.len() {
            let (n, file) = (own.len(), printable(file));
            return Err(Error::Fusion(format!(
                "{file} has {n} images, but {} has {}",
                printable(first_path),
                paths.len()
            )));
        }
        let own_labels: Vec<u32> = rows.iter().map(|row| posteriors.labels[*row]).collect();
        if labels.is_empty() {
            labels = own_labels;
        } else if labels != own_labels {
            return Err(Error::Fusion(format!("{} has other labels than the first file", printable(file))));
        }
        let weight = posteriors.origin.networks.len().max(1);
        all += weight;
        for (mut to, row) in sum.rows_mut().into_iter().zip(rows) {
            to.zip_mut_with(&posteriors.values.row(row), |s, v| *s += weight as f64 * f64::from(*v));
        }
    }
    if labels.is_empty() {
        return Err(Error::Fusion("no image is in all files".into()));
    }
    let networks = named.iter().flat_map(|(_, p)| p.origin.networks.clone()).collect();
    let skipped: BTreeSet<&String> = named.iter().flat_map(|(_, p)| &p.skipped).collect();
    Ok(Posteriors {
        values: sum.mapv(|s| (s / all as f64) as f32),
        labels,
        paths,
        skipped: skipped.into_iter().cloned().collect(),
        origin: Origin { networks, ..first.origin.clone() },
    })
}

/// Merges the posteriors of all parts of a split, given in any order.
///
/// # Errors
/// [`Error::Fusion`] if a part is missing or duplicate, or if networks, protocols or data sets differ.
pub fn merge(named: &[(&Path, &Posteriors)]) -> Result<Posteriors> {
    let Some((_, first)) = named.first() else {
        return Err(Error::Fusion("no posteriors to merge".into()));
    };
    let of = first.origin.part.count;
    let mut parts: Vec<Option<(&Path, &Posteriors)>> = vec![None; of];
    for (path, posteriors) in named {
        let origin = Origin { part: first.origin.part, ..posteriors.origin.clone() };
        if posteriors.origin.part.count != of || origin != first.origin {
            let what =
                "are not parts of one evaluation: network, protocol, data set or number of parts differ";
            return Err(Error::Fusion(format!("{} and {} {what}", printable(&named[0].0), printable(path))));
        }
        let part = posteriors.origin.part;
        match parts.get_mut(part.index) {
            None => return Err(Error::Fusion(format!("{} has an invalid part {part}", printable(path)))),
            Some(Some((other, _))) => {
                let (a, b) = (printable(other), printable(path));
                return Err(Error::Fusion(format!("{a} and {b} are both part {part}")));
            }
            Some(empty) => *empty = Some((path, posteriors)),
        }
    }
    let missing: Vec<String> = parts
        .iter()
        .enumerate()
        .filter(|(_, s)| s.is_none())
        .map(|(i, _)| format!("{}/{of}", i + 1))
        .collect();
    if !missing.is_empty() {
        return Err(Error::Fusion(format!("missing parts: {}", missing.join(", "))));
    }
    let parts: Vec<&Posteriors> = parts.into_iter().flatten().map(|(_, p)| p).collect();
    let mut whole = Posteriors {
        origin: Origin { part: Partition::WHOLE, ..first.origin.clone() },
        ..Posteriors::default()
    };
    let mut values = Vec::new();
    for part in &parts {
        values.extend(part.values.iter().copied());
        whole.labels.extend(&part.labels);
        whole.paths.extend(part.paths.iter().cloned());
        whole.skipped.extend(part.skipped.iter().cloned());
    }
    let distinct: BTreeSet<&String> = whole.paths.iter().collect();
    if distinct.len() != whole.paths.len() {
        return Err(Error::Fusion("an image is in two parts".into()));
    }
    let shape = (whole.labels.len(), first.values.ncols());
    whole.values = Array2::from_shape_vec(shape, values).map_err(|e| Error::Fusion(e.to_string()))?;
    Ok(whole)
}

pub(crate) fn same_origin(which: &str, a: &Posteriors, b: &Posteriors) -> Result<()> {
    let (ours, theirs) = (&a.origin, &b.origin);
    if a.values.ncols() != b.values.ncols() || ours.classes != theirs.classes {
        return Err(Error::Fusion(format!("{which} have different classes")));
    }
    if ours.dataset != theirs.dataset || ours.part != theirs.part {
        return Err(Error::Fusion(format!("{which} have different images")));
    }
    Ok(())
}

impl Posteriors {
    /// Whether this image was skipped.
    fn was_skipped(&self, path: &str) -> bool {
        // Each reason contains the whole path.
        let below = format!("/{path}: ");
        self.skipped.iter().any(|reason| reason.contains(&below)) && !self.paths.iter().any(|own| own == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn of(values: Array2<f32>, paths: &[&str], part: Partition) -> Posteriors {
        Posteriors {
            values,
            labels: paths.iter().map(|p| u32::from(p.contains('b'))).collect(),
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            skipped: Vec::new(),
            origin: Origin { dataset: "d".into(), part, ..Origin::default() },
        }
    }

    #[test]
    fn fusion_is_the_mean_and_one_network_is_unchanged() {
        let (x, y) = (Path::new("x"), Path::new("y"));
        let a = of(array![[0.75, 0.25], [0.5, 0.5]], &["a", "b"], Partition::WHOLE);
        let mut b = of(array![[0.25, 0.75], [0.25, 0.75]], &["a", "b"], Partition::WHOLE);
        assert_eq!(fuse(&[(x, &a)]).unwrap().values, a.values);
        assert_eq!(fuse(&[(x, &a), (y, &b)]).unwrap().values, array![[0.5, 0.5], [0.375, 0.625]]);
        // An image that one file skipped is left out of the mean; an image that is merely absent is an error.
        b = of(array![[0.2, 0.8]], &["b"], Partition::WHOLE);
        assert!(fuse(&[(x, &a), (y, &b)]).is_err());
        b.skipped = vec!["set/a: it is text".into()];
        let fused = fuse(&[(x, &a), (y, &b)]).unwrap();
        assert_eq!((fused.paths, fused.labels), (vec!["b".to_owned()], vec![1]));
        b.origin.dataset = "other".into();
        assert!(fuse(&[(x, &a), (y, &b)]).unwrap_err().to_string().contains("different images"));
    }

    #[test]
    fn merge_requires_every_part_once() {
        let part = |number: usize| Partition { index: number - 1, count: 2 };
        let first = of(array![[0.8, 0.2]], &["a"], part(1));
        let second = of(array![[0.4, 0.6], [0.1, 0.9]], &["b", "bb"], part(2));
        let (x, y) = (Path::new("x"), Path::new("y"));
        let whole = merge(&[(y, &second), (x, &first)]).unwrap();
        assert_eq!((whole.paths.len(), whole.values[[2, 1]], whole.origin.part), (3, 0.9, Partition::WHOLE));
        assert!(merge(&[(x, &first)]).unwrap_err().to_string().contains("missing parts: 2/2"));
        assert!(merge(&[(x, &first), (y, &first)]).unwrap_err().to_string().contains("are both part 1"));
    }
}
