//! Which of the paper's orderings of networks a table shows.

use serde::Serialize;

use crate::seeds::{half_interval, mean};
use crate::{Row, TableName};

/// An ordering of the paper, and what our errors say about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The ordering, such as `B is better than A`.
    pub claim: String,
    /// Error of the network that should be better minus the smallest error of the others, by seed.
    pub differences: Vec<f64>,
    /// Mean of the differences.
    pub mean: f64,
    /// 95 % t-interval of the mean; `None` with one seed.
    pub interval: Option<[f64; 2]>,
    /// The claim is that the difference is less than this.
    pub margin: f64,
    /// Whether the mean agrees with the claim.
    pub agrees: bool,
    /// What the interval says.
    pub verdict: Verdict,
}

/// Whether a claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval agrees.
    Holds,
    /// The whole interval disagrees.
    Contradicted,
    /// The interval contains the margin, or there is only one seed.
    Undecided,
}

/// A claim: the error of the row `better` is less than the smallest error of the rows `than`. Rows have the names of the
/// paper's rows.
struct Claim {
    text: &'static str,
    better: &'static str,
    than: &'static [&'static str],
    /// What the error may exceed the others by.
    margin: f64,
    /// Whether equal errors agree with the claim.
    or_equal: bool,
}

const fn claim(text: &'static str, better: &'static str, than: &'static [&'static str]) -> Claim {
    Claim { text, better, than, margin: 0.0, or_equal: false }
}

const fn no_worse(
    text: &'static str,
    better: &'static str,
    than: &'static [&'static str],
    margin: f64,
) -> Claim {
    Claim { text, better, than, margin, or_equal: true }
}

/// Sections 4.1 to 4.4.
const TABLE_3: [Claim; 10] = [
    no_worse("LRN does not help: A-LRN is no better than A", "A/256", &["A-LRN/256"], 0.0),
    claim("B is better than A", "B/256", &["A/256"]),
    claim("C is better than B", "C/256", &["B/256"]),
    claim("D is better than C", "D/256", &["C/256"]),
    no_worse("E is at most 2 points worse than D", "E/256", &["D/256"], 0.02),
    claim("scale jitter is best for C", "C/jitter", &["C/256", "C/384"]),
    claim("scale jitter is best for D", "D/jitter", &["D/256", "D/384"]),
    claim("scale jitter is best for E", "E/jitter", &["E/256", "E/384"]),
    claim("with scale jitter, D is better than C", "D/jitter", &["C/jitter"]),
    no_worse("with scale jitter, E is at most 2 points worse than D", "E/jitter", &["D/jitter"], 0.02),
];

const TABLE_5: [Claim; 2] = [
    claim(
        "D: dense and multi-crop evaluation together are better than either",
        "D/combined",
        &["D/dense", "D/multi-crop"],
    ),
    claim(
        "E: dense and multi-crop evaluation together are better than either",
        "E/combined",
        &["E/dense", "E/multi-crop"],
    ),
];

const TABLE_6: [Claim; 2] = [
    claim("two networks are better than the seven of the submission", "D+E/dense", &["submission"]),
    claim(
        "D and E: dense and multi-crop evaluation together are better than either",
        "D+E/combined",
        &["D+E/dense", "D+E/multi-crop"],
    ),
];

const SHALLOW: [Claim; 1] =
    [claim("B is better than the shallower network with 5x5 filters", "B/256", &["B-5x5/256"])];

/// The paper's orderings among the rows of a table. Orderings of rows that are missing or diverged are left out.
pub fn findings(table: &TableName, rows: &[Row]) -> Vec<Finding> {
    let claims: &[Claim] = match table {
        TableName::Table3 => &TABLE_3,
        TableName::Table5 => &TABLE_5,
        TableName::Table6 => &TABLE_6,
        TableName::Shallow => &SHALLOW,
        _ => &[],
    };
    claims.iter().filter_map(|claim| claim.check(rows)).collect()
}

impl Claim {
    fn check(&self, rows: &[Row]) -> Option<Finding> {
        let errors = |name: &str| -> Option<Vec<f64>> {
            let row = rows.iter().find(|row| row.paper_row == name)?;
            row.by_seed.iter().map(|result| result.top1_error).collect()
        };
        let better = errors(self.better)?;
        let than = self.than.iter().map(|name| errors(name)).collect::<Option<Vec<_>>>()?;
        let least = |seed: usize| than.iter().map(|errors| errors[seed]).fold(f64::INFINITY, f64::min);
        if better.is_empty() || than.iter().any(|errors| errors.len() != better.len()) {
            return None;
        }
        let differences: Vec<f64> =
            better.iter().enumerate().map(|(seed, error)| error - least(seed)).collect();
        let mean = mean(&differences);
        let interval = half_interval(&differences).map(|half| [mean - half, mean + half]);
        let agrees = |value: f64| value < self.margin || (self.or_equal && value == self.margin);
        let verdict = match interval {
            Some([_, high]) if agrees(high) => Verdict::Holds,
            Some([low, _]) if low > self.margin => Verdict::Contradicted,
            _ => Verdict::Undecided,
        };
        Some(Finding {
            claim: self.text.to_owned(),
            differences,
            mean,
            interval,
            margin: self.margin,
            agrees: agrees(mean),
            verdict,
        })
    }
}

/// The findings in words: a summary, then a line for each.
pub(crate) fn statement(findings: &[Finding]) -> Vec<String> {
    let Some(seeds) = findings.first().map(|finding| finding.differences.len()) else { return Vec::new() };
    let of = findings.len();
    let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let agree = findings.iter().filter(|finding| finding.agrees).count();
    let summary = if seeds == 1 {
        format!(
            "{agree} of {of} orderings are as in the paper. One seed decides none of them; --seeds 3 measures the spread"
        )
    } else {
        format!(
            "Of {of} orderings in the paper, {} hold, {} are contradicted and {} are undecided over {seeds} seeds; the \
             means of {agree} are as in the paper",
            count(Verdict::Holds),
            count(Verdict::Contradicted),
            count(Verdict::Undecided),
        )
    };
    std::iter::once(summary).chain(findings.iter().map(Finding::line)).collect()
}

impl Finding {
    fn line(&self) -> String {
        let points = |share: f64| format!("{:+.1}", 100.0 * share);
        let (claim, mean) = (&self.claim, points(self.mean));
        match (self.interval, self.verdict) {
            (None, _) if self.agrees => format!("{claim}: {mean} points, as in the paper"),
            (None, _) => format!("{claim}: {mean} points, unlike the paper"),
            (Some([low, high]), verdict) => {
                let verdict = match verdict {
                    Verdict::Holds => "holds",
                    Verdict::Contradicted => "contradicted",
                    Verdict::Undecided => "undecided",
                };
                format!("{claim}: {mean} points ({} to {}), {verdict}", points(low), points(high))
            }
        }
    }
}
