//! Training and test scales as text.

/// A fixed training scale, or scale jitter in the paper's notation.
pub fn train_scale_text(train: &[usize]) -> String {
    match train {
        [low, high] => format!("[{low};{high}]"),
        _ => test_scales_text(train),
    }
}

/// Test scales, separated by commas.
pub fn test_scales_text(sides: &[usize]) -> String {
    sides.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_written_as_in_the_paper() {
        assert_eq!(train_scale_text(&[256, 512]), "[256;512]");
        assert_eq!(train_scale_text(&[384]), "384");
    }
}
