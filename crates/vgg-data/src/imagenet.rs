//! The 1,000 classes of ILSVRC-2012, in WNID order.

/// WNID, ILSVRC2012_ID, number of training images and words of each class. WNID order is the order of the
/// logits of networks trained on ImageNet.
const CLASSES: &str = include_str!("imagenet_classes.tsv");

/// WNID and words of every class, in order of class index.
pub fn classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows().map(|row| (row.wnid, row.words))
}

/// Number of training images of every class, in order of class index: 732 to 1,300, and 1,281,167 in total.
pub fn train_images() -> impl Iterator<Item = u64> {
    rows().map(|row| row.images)
}

/// The class number ILSVRC2012_ID of the development kit, from 1, for a WNID.
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

/// Words for a WNID, such as `tench, Tinca tinca` for `n01440764`.
pub fn words(wnid: &str) -> Option<&'static str> {
    classes().find(|(id, _)| *id == wnid).map(|(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousand_classes_sorted_by_wnid() {
        assert_eq!((classes().count(), train_images().sum::<u64>()), (1000, 1_281_167));
        assert!(classes().map(|(id, _)| id).is_sorted());
        assert_eq!(words("n01440764"), Some("tench, Tinca tinca"));
        assert_eq!(words("n15075141"), Some("toilet tissue, toilet paper, bathroom tissue"));
        assert_eq!(words("cat"), None);
        assert_eq!((ilsvrc2012_id("n02119789"), ilsvrc2012_id("n01440764")), (Some(1), Some(449)));
    }
}
