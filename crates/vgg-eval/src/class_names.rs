//! Readable names of classes.

use std::collections::HashMap;

use vgg_data::imagenet;

/// Names of classes for people: words for WordNet IDs. Equal names, such as ImageNet's two classes `crane`,
/// are followed by the class index: `crane (134)`.
pub fn readable_names(classes: &[String]) -> Vec<String> {
    let names: Vec<&str> = classes.iter().map(|id| imagenet::words(id).unwrap_or(id)).collect();
    let mut counts = HashMap::new();
    names.iter().for_each(|name| *counts.entry(*name).or_insert(0) += 1);
    let readable = |(class, name): (usize, &&str)| match counts[*name] {
        1 => (*name).to_owned(),
        _ => format!("{name} ({class})"),
    };
    names.iter().enumerate().map(readable).collect()
}

#[cfg(test)]
mod tests {
    use super::readable_names;

    #[test]
    fn equal_names_are_told_apart() {
        let classes = ["n02012849", "cat", "n03126707", "cat"].map(str::to_owned);
        let names = readable_names(&classes);
        assert_eq!(names[1], "cat (1)");
        assert_eq!(names[3], "cat (3)");
        assert!(names[0] != names[2] && names[0].starts_with("crane"), "{names:?}");
    }
}
