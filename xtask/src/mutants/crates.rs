//! The crates for mutation testing, and the tests that run for each.

/// A crate, or part of one.
pub(super) struct Crate {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    /// Globs of the files to mutate; empty for the whole package.
    pub(super) files: &'static [&'static str],
    /// Arguments for `cargo test` of the package.
    pub(super) own_tests: &'static [&'static str],
    /// Arguments for `cargo test` of `vgg-tests` and `vgg-app`.
    pub(super) workspace_tests: &'static [&'static str],
}

pub(super) const CRATES: [Crate; 8] = [
    Crate {
        name: "vgg-data",
        package: "vgg-data",
        // The code that makes batches. Decoding, shards and preparation are tested with real files.
        files: &[
            "crates/vgg-data/src/augment.rs",
            "crates/vgg-data/src/batch.rs",
            "crates/vgg-data/src/geometry.rs",
            "crates/vgg-data/src/loader.rs",
            "crates/vgg-data/src/hflip.rs",
            "crates/vgg-data/src/pca_jitter.rs",
            "crates/vgg-data/src/prefetch.rs",
            "crates/vgg-data/src/random.rs",
            "crates/vgg-data/src/resize.rs",
            "crates/vgg-data/src/statistics.rs",
            "crates/vgg-data/src/view.rs",
        ],
        own_tests: &["--lib", "--tests"],
        workspace_tests: &["--test", "data", "--test", "eval", "--test", "training_runs"],
    },
    Crate {
        name: "vgg-optim",
        package: "vgg-optim",
        files: &[],
        own_tests: &["--lib", "--tests"],
        workspace_tests: &["--test", "pytorch", "--test", "training_runs"],
    },
    Crate {
        name: "vgg-layers",
        package: "vgg-layers",
        files: &[],
        own_tests: &["--lib", "--tests"],
        workspace_tests: &[
            "--test",
            "pytorch",
            "--test",
            "memory",
            "--test",
            "eval",
            "--test",
            "features",
            "--test",
            "training_runs",
        ],
    },
    Crate {
        name: "vgg-train",
        package: "vgg-train",
        files: &[],
        own_tests: &["--lib", "--tests"],
        workspace_tests: &[
            "--test",
            "train",
            "--test",
            "ranks",
            "--test",
            "durable",
            "--test",
            "training_runs",
        ],
    },
    Crate {
        name: "vgg-eval",
        package: "vgg-eval",
        files: &[],
        own_tests: &["--lib", "--tests"],
        workspace_tests: &[
            "--test",
            "eval",
            "--test",
            "features",
            "--test",
            "protocols",
            "--test",
            "commands",
        ],
    },
    Crate {
        name: "vgg-experiment",
        package: "vgg-experiment",
        files: &[],
        own_tests: &["--lib", "--tests"],
        workspace_tests: &[
            "--test",
            "training_runs",
            "--test",
            "identity",
            "--test",
            "commands",
            "--test",
            "ranks",
            "--test",
            "prepare",
        ],
    },
    Crate {
        name: "vgg-weights",
        package: "vgg-weights",
        files: &[],
        own_tests: &["--lib", "--tests"],
        workspace_tests: &["--test", "weights", "--test", "onnx", "--test", "weights_written"],
    },
    Crate {
        name: "vgg-files",
        package: "vgg-files",
        files: &[],
        own_tests: &["--lib", "--tests", "--all-features"],
        workspace_tests: &["--test", "durable", "--test", "shards"],
    },
];
