//! The note on settings that differ from the paper's.

mod fixture;

use fixture::paper_run;
use vgg_data::Interpolation;
use vgg_experiment::{PixelScale, RunPlan, TablePlan};
use vgg_layers::{Config, Init, LrnStyle, PoolRounding};
use vgg_train::{MomentumVariant, Schedule};

fn table(runs: Vec<RunPlan>) -> TablePlan {
    TablePlan {
        name: "table3".into(),
        title: "Table 3".into(),
        profile: "mini".into(),
        changes: Vec::new(),
        runs,
        rows: Vec::new(),
    }
}

/// The differences listed for these runs.
#[track_caller]
fn differences(runs: Vec<RunPlan>) -> String {
    let said = table(runs).differences_from_paper().unwrap();
    said.strip_prefix("profile mini; differs from the paper (in brackets): ").unwrap().to_owned()
}

/// Asserts the differences listed for one of the paper's runs with one change.
#[track_caller]
fn says(change: impl FnOnce(&mut RunPlan), expected: &str) {
    let mut run = paper_run("A/256", Config::A);
    change(&mut run);
    assert_eq!(differences(vec![run]), expected);
}

#[track_caller]
fn says_nothing(change: impl FnOnce(&mut RunPlan)) {
    let mut run = paper_run("A/256", Config::A);
    change(&mut run);
    assert_eq!(table(vec![run]).differences_from_paper(), None);
}

fn plateau(lr: f64) -> Schedule {
    let mut run = paper_run("A/256", Config::A);
    let Schedule::Plateau { lr: first, .. } = &mut run.schedule else { panic!("not the paper's") };
    *first = lr;
    run.schedule
}

#[test]
fn the_papers_settings_have_no_differences() {
    says_nothing(|_| ());
    says_nothing(|run| run.data.train_scale = [384, 384]);
    says_nothing(|run| run.data.train_scale = [256, 512]);
    says_nothing(|run| run.schedule = plateau(0.001));
    says_nothing(|run| run.run.seed = 7);
    let runs = [[256, 512], [256, 256], [384, 384]].map(|train_scale| {
        let mut run = paper_run("A", Config::A);
        run.data.train_scale = train_scale;
        run
    });
    assert_eq!(table(runs.to_vec()).differences_from_paper(), None, "in any order");
    let rates = [0.001, 0.01].map(|lr| {
        let mut run = paper_run("A", Config::A);
        run.schedule = plateau(lr);
        run
    });
    assert_eq!(table(rates.to_vec()).differences_from_paper(), None);
}

#[test]
fn each_setting_of_the_network_is_compared() {
    says(|run| run.network.width = 0.25, "width 0.25 (1)");
    says(|run| run.network.head = [4096, 512], "fc6 and fc7 [4096, 512] ([4096, 4096])");
    says(|run| run.data.crop = 192, "crop 192 (224)");
    says(|run| run.network.dropout = 0.25, "dropout 0.25 (0.5)");
    says(|run| run.network.lrn_style = LrnStyle::Caffe, "LRN Caffe (AlexNet)");
    says(|run| run.network.pool_rounding = PoolRounding::Ceil, "pool rounding Ceil (Floor)");
    says(|run| run.network.init.scheme = Init::He, "initialisation he (gaussian-0.01)");
}

#[test]
fn each_setting_of_the_images_is_compared() {
    says(|run| run.data.train_scale = [288, 288], "S 288 (256, 384, [256;512])");
    says(|run| run.data.train_scale = [256, 384], "S [256;384] (256, 384, [256;512])");
    says(|run| run.data.interpolation = Interpolation::Bicubic, "interpolation Bicubic (Bilinear)");
    says(|run| run.data.flip = false, "horizontal flip false (true)");
    says(|run| run.data.pca_jitter_std = 0.0, "PCA jitter std 0 (0.1)");
    says(|run| run.data.pixel_scale = PixelScale::Fixed(0.5), "pixels scaled by 0.5 (mean subtracted)");
    says(|run| run.data.pixel_scale = PixelScale::UnitVariance, "pixels of unit variance (mean subtracted)");
    let inherit = "pixels as in the initial weights (mean subtracted)";
    says(|run| run.data.pixel_scale = PixelScale::Inherit, inherit);
    says(|run| run.data.pixel_scale = PixelScale::Torchvision, "pixels as in torchvision (mean subtracted)");
}

#[test]
fn each_setting_of_the_optimiser_is_compared() {
    says(|run| run.optimizer.batch = 64, "batch 64 (256)");
    says(|run| run.optimizer.momentum = 0.5, "momentum 0.5 (0.9)");
    says(|run| run.optimizer.weight_decay = 0.0001, "weight decay 0.0001 (0.0005)");
    says(|run| run.optimizer.decay_biases = true, "bias decay true (false)");
    says(|run| run.optimizer.bias_lr_mult = 2.0, "bias lr multiplier 2 (1)");
    says(|run| run.optimizer.momentum_variant = MomentumVariant::Torch, "momentum variant Torch (Caffe)");
    says(|run| run.run.max_epochs = 16, "max epochs 16 (74)");
}

#[test]
fn each_schedule_is_compared() {
    says(|run| run.schedule = plateau(0.005), "initial learning rate 0.005 (0.01, 0.001)");
    let constant = "lr reduced never (when validation stops improving)";
    says(|run| run.schedule = Schedule::Constant { lr: 0.01 }, constant);
    let steps = Schedule::Steps { lr: 0.001, gamma: 0.1, milestones: vec![8] };
    says(|run| run.schedule = steps, "lr reduced at fixed epochs (when validation stops improving)");
    let steps = Schedule::Steps { lr: 0.125, gamma: 0.1, milestones: vec![8] };
    says(
        |run| run.schedule = steps,
        "initial learning rate 0.125 (0.01, 0.001); lr reduced at fixed epochs (when validation stops improving)",
    );
    let constant = Schedule::Constant { lr: 0.25 };
    says(
        |run| run.schedule = constant,
        "initial learning rate 0.25 (0.01, 0.001); lr reduced never (when validation stops improving)",
    );
}

#[test]
fn values_of_several_runs_are_listed_once_in_order() {
    let runs = [(0.5, 73), (1.0, 73), (0.5, 256)].map(|(width, side)| {
        let mut run = paper_run("A", Config::A);
        run.network.width = width;
        run.data.train_scale = [side, side];
        run
    });
    let expected = "width 0.5, 1 (1); S 73, 256 (256, 384, [256;512])";
    assert_eq!(differences(runs.to_vec()), expected);
}
