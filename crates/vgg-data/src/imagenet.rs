//! Names of the 1,000 classes of ILSVRC-2012.

/// WNID and words of each class, in WNID order, which is the order of the logits of networks trained on it.
const CLASSES: &str = include_str!("imagenet_classes.tsv");

/// WNIDs and words of all classes, in the order of their indices.
pub fn classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    CLASSES.lines().filter_map(|line| line.split_once('\t'))
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
        assert_eq!(classes().count(), 1000);
        assert!(classes().map(|(id, _)| id).is_sorted());
        assert_eq!(words("n01440764"), Some("tench, Tinca tinca"));
        assert_eq!(words("n15075141"), Some("toilet tissue, toilet paper, bathroom tissue"));
        assert_eq!(words("cat"), None);
    }
}
