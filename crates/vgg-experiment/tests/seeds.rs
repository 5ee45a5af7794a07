//! Rows over several seeds, and the paper's orderings that they show. The expected values are calculated by hand from
//! Student's and the binomial distribution.

mod fixture;

use fixture::rows::{member, row};
use vgg_experiment::{Finding, Row, SeedResult, TableName, Verdict, combine_seeds, findings};

/// A row of one seed.
fn seeded(name: &str, seed: u64, top1_error: f64) -> Row {
    let top5_error = Some(top1_error / 5.0);
    Row {
        paper_row: name.into(),
        seed,
        top5_error,
        by_seed: vec![SeedResult { seed, top1_error: Some(top1_error), top5_error }],
        n: 400,
        epochs: 10 + seed as usize,
        members: vec![member(name, &format!("runs/{name}-{seed}"))],
        ..row("B", &[73], &[73], top1_error)
    }
}

/// Tables of the seeds 1, 2, .. with a row for each name and its errors.
fn tables(rows: &[(&str, &[f64])]) -> Vec<Vec<Row>> {
    let seeds = rows[0].1.len();
    let table = |i: usize| rows.iter().map(|(name, errors)| seeded(name, i as u64 + 1, errors[i])).collect();
    (0..seeds).map(table).collect()
}

fn found(table: &str, rows: &[(&str, &[f64])]) -> Vec<Finding> {
    findings(&TableName::from(table), &combine_seeds(tables(rows)))
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
}

#[test]
fn rows_of_several_seeds_become_means() {
    let rows = combine_seeds(tables(&[("B/256", &[0.10, 0.12, 0.17]), ("A/256", &[0.2, 0.2, 0.2])]));
    let [b, a] = rows.as_slice() else { panic!("two rows") };
    near(b.top1_error.unwrap(), 0.13);
    near(b.top5_error.unwrap(), 0.026);
    near(b.top1_std.unwrap(), 0.036_055_513);
    // sqrt((4.30265 * 0.0360555 / sqrt(3))^2 + 1.959964^2 * 0.13 * 0.87 / 400)
    let [low, high] = b.top1_ci.unwrap();
    near(high - 0.13, 0.095_437_86);
    near(0.13 - low, 0.095_437_86);
    near(a.top1_std.unwrap(), 0.0);
    near(a.top1_ci.unwrap()[0], 0.160_800_72);
    assert_eq!(b.by_seed.iter().map(|result| result.seed).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((b.seed, b.epochs, b.n), (1, 13, 400));
    let runs: Vec<&str> = b.members.iter().map(|member| member.run.as_str()).collect();
    assert_eq!(runs, ["runs/B/256-1", "runs/B/256-2", "runs/B/256-3"]);
}

#[test]
fn one_seed_leaves_rows_unchanged() {
    let table = tables(&[("B/256", &[0.1])]);
    assert_eq!(combine_seeds(table.clone()), table[0]);
    assert!(combine_seeds(Vec::new()).is_empty());
}

#[test]
fn a_seed_that_diverged_leaves_no_mean() {
    let mut tables = tables(&[("B/256", &[0.10, 0.12])]);
    let diverged = &mut tables[1][0];
    diverged.top1_error = None;
    diverged.by_seed[0].top1_error = None;
    diverged.note = Some("the loss is not finite".into());
    let row = &combine_seeds(tables)[0];
    assert_eq!((row.top1_error, row.top1_std, row.top1_ci), (None, None, None));
    assert_eq!(row.note.as_deref(), Some("seed 2: the loss is not finite"));
}

#[test]
fn orderings_are_decided_by_differences_paired_by_seed() {
    // The errors of a seed vary together, so the differences decide where the errors would not.
    let b = [0.30, 0.20, 0.10];
    let found = found(
        "table3",
        &[
            ("A/256", &[0.33, 0.231, 0.129]),
            ("A-LRN/256", &[0.33, 0.231, 0.129]),
            ("B/256", &b),
            ("C/256", &[0.34, 0.24, 0.141]),
            ("D/256", &[0.32, 0.25, 0.12]),
        ],
    );
    let verdicts: Vec<(&str, Verdict, bool)> =
        found.iter().map(|finding| (finding.claim.as_str(), finding.verdict, finding.agrees)).collect();
    assert_eq!(
        verdicts,
        [
            ("LRN does not help: A-LRN is no better than A", Verdict::Holds, true),
            ("B is better than A", Verdict::Holds, true),
            ("C is better than B", Verdict::Contradicted, false),
            ("D is better than C", Verdict::Undecided, true),
        ]
    );
    let [low, high] = found[1].interval.unwrap();
    // Differences -0.030, -0.031, -0.029: 4.30265 * 0.001 / sqrt(3)
    near(low, -0.030 - 0.002_484_13);
    near(high, -0.030 + 0.002_484_13);
}

#[test]
fn margins_and_the_best_of_several_rows_count() {
    let found = found(
        "table3",
        &[
            ("C/256", &[0.20, 0.21]),
            ("C/384", &[0.18, 0.25]),
            ("C/jitter", &[0.17, 0.19]),
            ("D/256", &[0.100, 0.101]),
            ("E/256", &[0.110, 0.1111]),
        ],
    );
    let finding = |claim: &str| found.iter().find(|finding| finding.claim == claim).unwrap();
    let jitter = finding("scale jitter is best for C");
    near(jitter.differences[0], -0.01);
    near(jitter.differences[1], -0.02);
    assert_eq!(jitter.verdict, Verdict::Undecided);
    let margin = finding("E is at most 2 points worse than D");
    // 0.010 and 0.0101: the interval ends at 0.0107.
    assert_eq!((margin.margin, margin.verdict, margin.agrees), (0.02, Verdict::Holds, true));
}

#[test]
fn one_seed_decides_nothing_and_other_tables_have_their_orderings() {
    let one = found("shallow", &[("B/256", &[0.2]), ("B-5x5/256", &[0.3])]);
    assert_eq!(
        (one.len(), one[0].verdict, one[0].agrees, one[0].interval),
        (1, Verdict::Undecided, true, None)
    );
    let five = found(
        "table5",
        &[("D/dense", &[0.2]), ("D/multi-crop", &[0.19]), ("D/combined", &[0.195]), ("E/dense", &[0.1])],
    );
    assert_eq!(five.len(), 1);
    assert!(!five[0].agrees);
    near(five[0].mean, 0.005);
    assert!(found("init", &[("D/he", &[0.2])]).is_empty());
}
