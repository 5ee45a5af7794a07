//! Custom networks: layers, serialisation, errors, and the columns of Table 1 written as stages.

use vgg_layers::{Config, Conv, LayerKind, NetworkSpec, Stages};

fn read(json: &str) -> Result<Config, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

fn own(json: &str) -> NetworkSpec {
    NetworkSpec { classes: 10, head: [20, 30], crop: 64, ..NetworkSpec::paper(read(json).unwrap()) }
}

#[test]
fn each_stage_is_convolutions_followed_by_pooling() {
    let spec = own(r#"[[12], [{"filters": 7, "kernel": 1}, 20], [{"filters": 33, "kernel": 5}]]"#);
    let conv = |kernel| LayerKind::Conv { kernel };
    let layers: Vec<_> = spec.layers().unwrap().into_iter().map(|l| (l.name, l.kind, l.output)).collect();
    let expected = [
        ("conv1_1", conv(3), [64, 64, 12]),
        ("pool1", LayerKind::MaxPool, [32, 32, 12]),
        ("conv2_1", conv(1), [32, 32, 7]),
        ("conv2_2", conv(3), [32, 32, 20]),
        ("pool2", LayerKind::MaxPool, [16, 16, 20]),
        ("conv3_1", conv(5), [16, 16, 33]),
        ("pool3", LayerKind::MaxPool, [8, 8, 33]),
        ("fc6", LayerKind::Linear { relu: true }, [1, 1, 20]),
        ("drop6", LayerKind::Dropout, [1, 1, 20]),
        ("fc7", LayerKind::Linear { relu: true }, [1, 1, 30]),
        ("drop7", LayerKind::Dropout, [1, 1, 30]),
        ("fc8", LayerKind::Linear { relu: false }, [1, 1, 10]),
    ];
    assert_eq!(layers, expected.map(|(name, kind, output)| (name.to_owned(), kind, output)));
    assert_eq!((spec.config.name(), spec.config.weight_layers(), spec.stride()), ("custom", 7, 8));
    // Weights and biases: 3 * 9 * 12 + 12, 12 * 7 + 7, 7 * 9 * 20 + 20, 20 * 25 * 33 + 33, 33 * 64 * 20 + 20,
    // 20 * 30 + 30, 30 * 10 + 10.
    assert_eq!(spec.parameter_count().unwrap(), 336 + 91 + 1280 + 16_533 + 42_260 + 630 + 310);
    // Receptive fields: conv1_1 3, pool1 4, conv2_1 4, conv2_2 8, pool2 10, conv3_1 26, pool3 30; fc6 adds 7
    // strides of 8.
    let summary = spec.summary().unwrap();
    assert_eq!((summary.receptive_field_last_pool, summary.receptive_field_fc6), (30, 30 + 7 * 8));
}

#[test]
fn filters_are_unchanged_at_width_1_and_multiples_of_8_at_others() {
    let filters = |width: f64| {
        let spec = NetworkSpec { width, ..own("[[12, 20]]") };
        spec.layers().unwrap()[..2].iter().map(|layer| layer.output[2]).collect::<Vec<_>>()
    };
    assert_eq!((filters(1.0), filters(2.0), filters(0.1)), (vec![12, 20], vec![24, 40], vec![8, 8]));
}

#[test]
fn a_convolution_serializes_as_a_number_or_a_table() {
    for json in
        [r#"[[64],[128],[256,256]]"#, r#"[[64,{"filters":64,"kernel":1}],[{"filters":9,"kernel":5}]]"#]
    {
        let config = read(json).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), json);
    }
    assert_eq!(read(r#"[[{"filters": 64, "kernel": 3}]]"#), read("[[64]]"));
    assert_eq!(read(r#""a-lrn""#), Ok(Config::ALrn));
}

#[test]
fn every_column_of_table_1_equals_its_stages() {
    let d = "[[64,64],[128,128],[256,256,256],[512,512,512],[512,512,512]]";
    assert_eq!(serde_json::to_string(&*Config::D.stages()).unwrap(), d);
    for config in Config::all() {
        let paper = NetworkSpec::paper(config.clone());
        let stages = NetworkSpec { config: Config::Custom(config.stages().into_owned()), ..paper.clone() };
        let mut layers = paper.layers().unwrap();
        layers.retain(|layer| layer.kind != LayerKind::Lrn);
        assert_eq!(stages.layers().unwrap(), layers, "{config}");
    }
}

#[test]
fn invalid_stages_are_rejected_with_their_position() {
    let eleven = format!("[{}]", ["[8]"; 11].join(","));
    for (json, words) in [
        ("[]", "0 stages; there must be 1 to 10"),
        (eleven.as_str(), "11 stages"),
        ("[[8], []]", "stage 2 has no convolution"),
        (r#"[[8], [8, {"filters": 8, "kernel": 2}]]"#, "conv2_2 has kernel 2; it must be 1, 3 or 5"),
        ("[[0]]", "conv1_1 has 0 filters"),
        ("[[65537]]", "conv1_1 has 65537 filters"),
        ("[[-8]]", "a convolution must be a number of filters, or { filters = ..., kernel = 1, 3 or 5 }"),
        (r#"[[{"filters": 8}]]"#, "a convolution must be"),
        (r#"[[{"filters": 8, "kernel": 3, "stride": 2}]]"#, "a convolution must be"),
        ("[64]", "sequence"),
        ("64", "stages, such as [[64], [128], [256, 256]]"),
        (r#""F""#, "unknown variant `F`, expected one of `A`, `A-LRN`"),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(words), "{json}: {error}");
    }
    assert!(Stages::new(vec![vec![Conv { filters: 65_536, kernel: 5 }]; 10]).is_ok());
    let odd_crop = NetworkSpec { crop: 36, ..own("[[8], [8], [8]]") }.layers().unwrap_err().to_string();
    assert!(odd_crop.contains("crop 36 is not a multiple of 8 between 8 and 1024"), "{odd_crop}");
    assert!(NetworkSpec { crop: 8, ..own("[[8], [8], [8]]") }.layers().is_ok());
}
