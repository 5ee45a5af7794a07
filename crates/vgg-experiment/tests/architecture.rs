//! Tables 1 and 2 against the paper's, cell by cell, and against sizes computed by plain loops.

use serde_json::{Value, json};
use vgg_experiment::{table1, table2};
use vgg_layers::{Config, NetworkSpec};

/// Table 1 with B-5x5 of section 4.1: network, number of weight layers, and kernel sizes by block.
const TABLE_1: [(&str, usize, [&[usize]; 5]); 7] = [
    ("A", 11, [&[3], &[3], &[3, 3], &[3, 3], &[3, 3]]),
    ("A-LRN", 11, [&[3], &[3], &[3, 3], &[3, 3], &[3, 3]]),
    ("B", 13, [&[3, 3], &[3, 3], &[3, 3], &[3, 3], &[3, 3]]),
    ("C", 16, [&[3, 3], &[3, 3], &[3, 3, 1], &[3, 3, 1], &[3, 3, 1]]),
    ("D", 16, [&[3, 3], &[3, 3], &[3, 3, 3], &[3, 3, 3], &[3, 3, 3]]),
    ("E", 19, [&[3, 3], &[3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3], &[3, 3, 3, 3]]),
    ("B-5x5", 8, [&[5], &[5], &[5], &[5], &[5]]),
];

fn networks() -> Vec<NetworkSpec> {
    TABLE_1.map(|(name, ..)| NetworkSpec::paper(name.parse().unwrap())).to_vec()
}

#[test]
fn table_1_has_the_papers_cells() {
    let report = table1(&networks()).unwrap();
    assert_eq!(report.columns, ["block", "A", "A-LRN", "B", "C", "D", "E", "B-5x5", "output"]);
    let mut expected = vec![vec!["weight layers".to_owned()]];
    expected[0].extend(TABLE_1.iter().map(|(_, layers, _)| layers.to_string()));
    expected[0].push(String::new());
    let outputs = ["112 x 112 x 64", "56 x 56 x 128", "28 x 28 x 256", "14 x 14 x 512", "7 x 7 x 512"];
    let filters = [64, 128, 256, 512, 512];
    for block in 0..5 {
        let mut line = vec![format!("{}, then max-pool", block + 1)];
        for (name, _, blocks) in TABLE_1 {
            let convolutions =
                blocks[block].iter().map(|kernel| format!("{kernel}x{kernel}-{}", filters[block]));
            let mut cell = convolutions.collect::<Vec<_>>().join(" ");
            if name == "A-LRN" && block == 0 {
                cell += " LRN";
            }
            line.push(cell);
        }
        line.push(outputs[block].to_owned());
        expected.push(line);
    }
    for (name, outputs) in [("fc6", "4096"), ("fc7", "4096"), ("fc8", "1000")] {
        let mut line = vec![name.to_owned()];
        line.extend(vec![outputs.to_owned(); 8]);
        expected.push(line);
    }
    assert_eq!(report.cells, expected);
    assert_eq!((report.name.as_str(), report.title.as_str()), ("table1", "Table 1: ConvNet configurations"));
    assert_eq!((report.profile, report.about), (None, Value::Null));
    assert_eq!(report.notes.len(), 1);
    assert!(report.runs.is_empty() && report.plots.is_empty());
}

/// The JSON rows of Table 1 for one network.
fn layers(name: &str, blocks: [&[usize]; 5]) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut push = |layer: String, kind: &str, output: [usize; 3], weights: usize, biases: usize| {
        let macs = weights * output[0] * output[1];
        rows.push(json!({ "config": name, "layer": layer, "kind": kind, "output": output,
            "parameters": weights + biases, "macs": macs }));
    };
    let mut side = 224;
    let mut channels = 3;
    for (block, (kernels, filters)) in blocks.iter().zip([64, 128, 256, 512, 512]).enumerate() {
        for (i, kernel) in kernels.iter().enumerate() {
            let weights = kernel * kernel * channels * filters;
            let kind = format!("conv {kernel}x{kernel}");
            push(format!("conv{}_{}", block + 1, i + 1), &kind, [side, side, filters], weights, filters);
            if name == "A-LRN" && block == 0 {
                push("lrn1".into(), "local response normalisation", [side, side, filters], 0, 0);
            }
            channels = filters;
        }
        side /= 2;
        push(format!("pool{}", block + 1), "max-pool 2x2", [side, side, filters], 0, 0);
    }
    push("fc6".into(), "fully connected", [1, 1, 4096], 7 * 7 * 512 * 4096, 4096);
    push("drop6".into(), "dropout 0.5", [1, 1, 4096], 0, 0);
    push("fc7".into(), "fully connected", [1, 1, 4096], 4096 * 4096, 4096);
    push("drop7".into(), "dropout 0.5", [1, 1, 4096], 0, 0);
    push("fc8".into(), "fully connected", [1, 1, 1000], 4096 * 1000, 1000);
    rows
}

#[test]
fn table_1_has_a_row_for_each_layer() {
    let report = table1(&networks()).unwrap();
    assert_eq!(report.fields, ["config", "layer", "kind", "output", "parameters", "macs"]);
    let expected: Vec<Value> = TABLE_1.iter().flat_map(|(name, _, blocks)| layers(name, *blocks)).collect();
    assert_eq!(report.rows.len(), expected.len());
    for (ours, expected) in report.rows.iter().zip(expected) {
        assert_eq!(*ours, expected);
    }
}

#[test]
fn table_1_of_scaled_networks_has_scaled_sizes() {
    let spec = |config| NetworkSpec {
        width: 0.25,
        classes: 10,
        head: [96, 48],
        crop: 64,
        ..NetworkSpec::paper(config)
    };
    let report = table1(&[spec(Config::C), spec(Config::A)]).unwrap();
    let expected = [
        ["weight layers", "16", "11", ""],
        ["1, then max-pool", "3x3-16 3x3-16", "3x3-16", "32 x 32 x 16"],
        ["2, then max-pool", "3x3-32 3x3-32", "3x3-32", "16 x 16 x 32"],
        ["3, then max-pool", "3x3-64 3x3-64 1x1-64", "3x3-64 3x3-64", "8 x 8 x 64"],
        ["4, then max-pool", "3x3-128 3x3-128 1x1-128", "3x3-128 3x3-128", "4 x 4 x 128"],
        ["5, then max-pool", "3x3-128 3x3-128 1x1-128", "3x3-128 3x3-128", "2 x 2 x 128"],
        ["fc6", "96", "96", "96"],
        ["fc7", "48", "48", "48"],
        ["fc8", "10", "10", "10"],
    ];
    assert_eq!(report.cells, expected);
    let broken = NetworkSpec { crop: 65, ..spec(Config::A) };
    assert!(table1(std::slice::from_ref(&broken)).is_err());
    assert!(table2(&[broken]).is_err());
}

#[test]
fn table_2_has_the_numbers_of_parameters() {
    let report = table2(&networks()).unwrap();
    // Configuration, parameters, millions, the paper's millions, parameters of convolutions, GMAC, receptive
    // field at fc6.
    let expected = [
        ["A", "132863336", "133", "133", "9220480", "7.609", "342"],
        ["A-LRN", "132863336", "133", "133", "9220480", "7.609", "342"],
        ["B", "133047848", "133", "133", "9404992", "11.308", "348"],
        ["C", "133638952", "134", "134", "9996096", "11.771", "348"],
        ["D", "138357544", "138", "138", "14714688", "15.470", "404"],
        ["E", "143667240", "144", "144", "20024384", "19.632", "460"],
        ["B-5x5", "134503528", "135", "-", "10860672", "9.356", "348"],
    ];
    assert_eq!(report.cells, expected);
    let columns = [
        "config",
        "parameters",
        "millions",
        "paper: millions",
        "in convolutions",
        "GMAC",
        "receptive field, px",
    ];
    assert_eq!(report.columns, columns);
    let fields = [
        "config",
        "parameters",
        "parameters_millions",
        "paper_parameters_millions",
        "conv_parameters",
        "macs",
        "receptive_field",
    ];
    assert_eq!(report.fields, fields);
    for (row, cells) in report.rows.iter().zip(expected) {
        assert_eq!(row.as_object().unwrap().len(), fields.len());
        for (field, cell) in fields.iter().zip(cells) {
            match (*field, &row[field]) {
                ("macs", value) => assert_eq!(format!("{:.3}", value.as_u64().unwrap() as f64 / 1e9), cell),
                (_, Value::Null) => assert_eq!(cell, "-"),
                (_, Value::String(text)) => assert_eq!(text, cell),
                (_, value) => assert_eq!(value.to_string(), cell, "{field}"),
            }
        }
    }
    assert_eq!((report.name.as_str(), report.title.as_str()), ("table2", "Table 2: number of parameters"));
    assert_eq!((report.profile, report.about), (None, Value::Null));
}

#[test]
fn table_2_compares_only_the_papers_networks() {
    let narrow = NetworkSpec { width: 0.5, ..NetworkSpec::paper(Config::D) };
    let report = table2(&[narrow, NetworkSpec::paper(Config::D)]).unwrap();
    assert_eq!((report.cells[0][3].as_str(), report.cells[1][3].as_str()), ("-", "138"));
    assert_eq!(report.rows[0]["paper_parameters_millions"], Value::Null);
    assert_eq!(report.rows[1]["paper_parameters_millions"], 138);
}
