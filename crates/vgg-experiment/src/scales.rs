//! Training and test scales as text.

/// A fixed side, or scale jitter as the paper writes it.
pub fn sides(train: &[usize]) -> String {
    match train {
        [low, high] => format!("[{low};{high}]"),
        _ => listed(train),
    }
}

/// Test sides, separated by commas.
pub fn listed(sides: &[usize]) -> String {
    sides.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_written_as_in_the_paper() {
        assert_eq!(sides(&[256, 512]), "[256;512]");
        assert_eq!(sides(&[384]), "384");
    }
}
