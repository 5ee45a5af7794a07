//! The 1,000 classes of ILSVRC-2012.

/// WNID, number in the development kit, number of training images and words of each class, in WNID order, which is the order of the logits of networks trained on it.
const CLASSES: &str = include_str!("imagenet_classes.tsv");

/// WNIDs and words of all classes, in the order of their indices.
pub fn classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows().map(|row| (row.wnid, row.words))
}

/// Training images of all classes: 732 to 1,300, and 1,281,167 in all.
pub fn train_images() -> impl Iterator<Item = u64> {
    rows().map(|row| row.images)
}

/// Its number in the development kit, ILSVRC2012_ID, from 1, for a WNID.
pub fn ilsvrc2012_id(wnid: &str) -> Option<u32> {
    rows().find(|row| row.wnid == wnid).map(|row| row.id)
}

struct Row {
    wnid: &'static str,
    id: u32,
    images: u64,
    words: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    CLASSES.lines().filter_map(|line| {
        let mut fields = line.splitn(4, '\t');
        let mut next = || fields.next();
        let (wnid, id, images, words) = (next()?, next()?, next()?, next()?);
        Some(Row { wnid, id: id.parse().ok()?, images: images.parse().ok()?, words })
    })
}

/// Words for a WNID such as `n01440764`.
pub fn words(wnid: &str) -> Option<&'static str> {
    classes().find(|(id, _)| *id == wnid).map(|(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_thousand_sorted_by_wnid() {
        assert_eq!((classes().count(), train_images().sum::<u64>()), (1000, 1_281_167));
        assert!(classes().map(|(id, _)| id).is_sorted());
        assert_eq!(words("n01440764"), Some("tench, Tinca tinca"));
        assert_eq!(words("n15075141"), Some("toilet tissue, toilet paper, bathroom tissue"));
        assert_eq!(words("cat"), None);
        assert_eq!((ilsvrc2012_id("n02119789"), ilsvrc2012_id("n01440764")), (Some(1), Some(449)));
    }
}
