//! Tables 1 and 2, which are computed from the networks without training.

use serde_json::{Value, json};
use vgg_layers::{NetworkSpec, Summary};

use crate::{Report, Result, paper};

/// Table 1: the layers of each network by block, with the output sizes after pooling.
///
/// `networks` are the columns.
///
/// # Errors
/// [`crate::Error::Network`] if a network is invalid.
pub fn table1(networks: &[NetworkSpec]) -> Result<Report> {
    let summaries = networks.iter().map(NetworkSpec::summary).collect::<vgg_layers::Result<Vec<_>>>()?;
    let mut columns = vec!["block".to_owned()];
    columns.extend(summaries.iter().map(|s| s.config.to_owned()));
    columns.push("output".into());
    let mut cells = vec![line("weight layers", &summaries, |s| s.weight_layers.to_string(), String::new())];
    for block in 1..=5 {
        let prefixes = [format!("conv{block}_"), format!("lrn{block}")];
        let pool = format!("pool{block}");
        let of = |s: &Summary| {
            let own = s.layers.iter().filter(|l| prefixes.iter().any(|p| l.name.starts_with(p.as_str())));
            let [_, _, filters] = s.layers.iter().find(|l| l.name == pool).map_or([0; 3], |l| l.output);
            let kinds: Vec<String> = own
                .map(|l| match l.kind.strip_prefix("conv ") {
                    Some(kernel) => format!("{kernel}-{filters}"),
                    None => "LRN".into(),
                })
                .collect();
            kinds.join(" ")
        };
        let [h, w, c] = output(&summaries, &pool);
        cells.push(line(&format!("{block}, then max-pool"), &summaries, of, format!("{h} x {w} x {c}")));
    }
    for fc in ["fc6", "fc7", "fc8"] {
        let of = |s: &Summary| s.layers.iter().find(|l| l.name == fc).map_or(0, |l| l.output[2]).to_string();
        let [_, _, c] = output(&summaries, fc);
        cells.push(line(fc, &summaries, of, c.to_string()));
    }
    let mut rows = Vec::new();
    for summary in &summaries {
        for layer in &summary.layers {
            rows.push(json!({ "config": summary.config, "layer": layer.name, "kind": layer.kind,
                "output": layer.output, "parameters": layer.parameters, "macs": layer.macs }));
        }
    }
    Ok(Report {
        name: "table1".into(),
        title: "Table 1: ConvNet configurations".into(),
        profile: None,
        statement: Vec::new(),
        findings: Vec::new(),
        notes: vec!["3x3-64: 64 filters of 3x3; every convolution is followed by a ReLU".into()],
        columns,
        cells,
        fields: vec!["config", "layer", "kind", "output", "parameters", "macs"],
        rows,
        runs: Vec::new(),
        plots: Vec::new(),
        about: Value::Null,
    })
}

/// Table 2: numbers of parameters, compared with the paper's.
///
/// # Errors
/// [`crate::Error::Network`] if a network is invalid.
pub fn table2(networks: &[NetworkSpec]) -> Result<Report> {
    let (mut cells, mut rows) = (Vec::new(), Vec::new());
    for network in networks {
        let s = network.summary()?;
        let full = *network == NetworkSpec::paper(network.config.clone());
        let theirs = paper::TABLE_2.iter().find(|(name, _)| full && *name == s.config).map(|(_, m)| *m);
        let millions = (s.parameters as f64 / 1e6).round() as u64;
        let dash = || "-".to_owned();
        cells.push(vec![
            s.config.to_owned(),
            s.parameters.to_string(),
            millions.to_string(),
            theirs.map_or_else(dash, |m| m.to_string()),
            s.conv_parameters.to_string(),
            format!("{:.3}", s.macs as f64 / 1e9),
            s.receptive_field_fc6.to_string(),
        ]);
        rows.push(json!({ "config": s.config, "parameters": s.parameters, "parameters_millions": millions,
            "paper_parameters_millions": theirs, "conv_parameters": s.conv_parameters, "macs": s.macs,
            "receptive_field": s.receptive_field_fc6 }));
    }
    let columns = [
        "config",
        "parameters",
        "millions",
        "paper: millions",
        "in convolutions",
        "GMAC",
        "receptive field, px",
    ];
    Ok(Report {
        name: "table2".into(),
        title: "Table 2: number of parameters".into(),
        profile: None,
        statement: Vec::new(),
        findings: Vec::new(),
        notes: vec!["parameters: weights and biases; GMAC: 10^9 multiply-accumulates for one crop".into()],
        columns: columns.map(str::to_owned).to_vec(),
        cells,
        fields: vec![
            "config",
            "parameters",
            "parameters_millions",
            "paper_parameters_millions",
            "conv_parameters",
            "macs",
            "receptive_field",
        ],
        rows,
        runs: Vec::new(),
        plots: Vec::new(),
        about: Value::Null,
    })
}

fn line(head: &str, summaries: &[Summary], of: impl Fn(&Summary) -> String, last: String) -> Vec<String> {
    let mut cells = vec![head.to_owned()];
    cells.extend(summaries.iter().map(of));
    cells.push(last);
    cells
}

/// Output of a layer, which is the same in all networks of a table.
fn output(summaries: &[Summary], layer: &str) -> [usize; 3] {
    let of = |s: &Summary| s.layers.iter().find(|l| l.name == layer).map(|l| l.output);
    summaries.iter().find_map(of).unwrap_or_default()
}
