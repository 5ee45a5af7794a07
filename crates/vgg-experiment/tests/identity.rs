//! What decides a run, field by field, and directories that hold another run.

mod one_run;

use std::path::PathBuf;

use one_run::{in_context, in_context_on, plan, train, workplace};
use vgg_data::{Filter, OnBadImage};
use vgg_experiment::{
    DataPlan, Error, InitPlan, NetworkPlan, PixelScale, PreparedRun, RunPlan, Source, Start,
};
use vgg_layers::{Config, Device, Init, LrnStyle, PoolRounding, TransferMap};
use vgg_testkit::picture_path;
use vgg_train::{Resume, Schedule, SgdForm, SgdOptions, TrainConfig};

/// Every field of a plan that decides its run, each changed in another way.
fn other_plans(start: PathBuf) -> Vec<RunPlan> {
    let base = plan;
    let network = |network| RunPlan { network, ..base() };
    let data = |data| RunPlan { data, ..base() };
    let train = |train| RunPlan { train, ..base() };
    let sgd = |sgd| RunPlan { train: TrainConfig { sgd, ..base().train }, ..base() };
    let of = base().network;
    let all = base().data;
    let config = base().train;
    let start = |map| RunPlan {
        init: InitPlan { fresh: Init::He, from: Some(Start { source: Source::File(start.clone()), map }) },
        ..base()
    };
    let as_start = start(TransferMap::Paper);
    vec![
        network(NetworkPlan { config: Config::B, ..of.clone() }),
        network(NetworkPlan { width: 0.125, ..of.clone() }),
        network(NetworkPlan { head: [14, 18], ..of.clone() }),
        network(NetworkPlan { dropout: 0.5, ..of.clone() }),
        network(NetworkPlan { lrn_style: LrnStyle::Caffe, ..of.clone() }),
        network(NetworkPlan { pool_rounding: PoolRounding::Ceil, ..of.clone() }),
        RunPlan {
            validate_side: 64,
            data: DataPlan { train_side: [64, 64], ..all.clone() },
            ..network(NetworkPlan { crop: 64, ..of })
        },
        RunPlan { init: InitPlan { fresh: Init::GlorotNormal, from: None }, ..base() },
        start(TransferMap::AllMatching),
        start(TransferMap::Layers(vec!["fc7".into()])),
        RunPlan { data: DataPlan { pixel_scale: PixelScale::AsStart, ..all.clone() }, ..as_start.clone() },
        as_start,
        data(DataPlan { train_side: [36, 49], ..all.clone() }),
        data(DataPlan { train_side: [37, 48], ..all.clone() }),
        data(DataPlan { filter: Filter::Nearest, ..all.clone() }),
        data(DataPlan { flip: false, ..all.clone() }),
        data(DataPlan { colour_shift_std: 0.25, ..all.clone() }),
        data(DataPlan { pixel_scale: PixelScale::Fixed(1.0), ..all.clone() }),
        data(DataPlan { pixel_scale: PixelScale::Torchvision, ..all.clone() }),
        data(DataPlan { on_bad_image: OnBadImage::Skip, ..all }),
        train(TrainConfig { micro_batch: 2, ..config.clone() }),
        train(TrainConfig { max_epochs: 4, ..config.clone() }),
        train(TrainConfig { validate_every: 2, ..config.clone() }),
        train(TrainConfig { seed: 6, ..config.clone() }),
        train(TrainConfig { schedule: Schedule::Constant { lr: 0.02 }, ..config.clone() }),
        train(TrainConfig {
            schedule: Schedule::Steps { lr: 0.02, factor: 0.2, at: vec![0.6] },
            ..config.clone()
        }),
        sgd(SgdOptions { form: SgdForm::Torch, ..config.sgd }),
        sgd(SgdOptions { momentum: 0.9, ..config.sgd }),
        sgd(SgdOptions { weight_decay: 0.1, ..config.sgd }),
        sgd(SgdOptions { decay_biases: true, ..config.sgd }),
        sgd(SgdOptions { bias_lr: 1.0, ..config.sgd }),
        RunPlan { batch: 5, ..base() },
        RunPlan { validate_side: 41, ..base() },
        RunPlan { train_layers: Some(vec!["fc8".into()]), ..base() },
    ]
}

#[test]
fn everything_that_decides_a_run_is_in_its_identity() {
    let dir = workplace();
    let out = dir.path().join("run");
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    let others = other_plans(dir.path().join("start.safetensors"));
    in_context(dir.path(), &[], |context| {
        let identity = |plan: &RunPlan| PreparedRun::new(plan, None, context).unwrap().identity();
        let mut seen = vec![identity(&plan())];
        for other in &others {
            let own = identity(other);
            assert!(!seen.contains(&own), "the same identity as another: {other:?}");
            seen.push(own);
            let refused = PreparedRun::new(other, None, context).unwrap().train(
                &out,
                Resume::Auto,
                context,
                &mut |_| (),
            );
            assert!(matches!(refused, Err(Error::Train(vgg_train::Error::OtherRun { .. }))), "{other:?}");
        }
        // What does not decide a run.
        let classes = RunPlan { network: NetworkPlan { classes: Some(7), ..plan().network }, ..plan() };
        let named = RunPlan { name: "other".into(), may_diverge: true, ..plan() };
        let enlarged = RunPlan { data: DataPlan { enlarge: true, ..plan().data }, ..plan() };
        for same in [classes, named, enlarged] {
            assert_eq!(identity(&same), seen[0], "{same:?}");
        }
    });
}

#[test]
fn images_weights_to_start_from_and_the_instruction_set_decide_a_run_and_threads_do_not() {
    let dir = workplace();
    let file = dir.path().join("start.safetensors");
    let from = Some(Start { source: Source::File(file.clone()), map: TransferMap::AllMatching });
    let started = RunPlan { init: InitPlan { fresh: Init::He, from }, ..plan() };
    let identity = |device: &Device, plan: &RunPlan| {
        in_context_on(device, dir.path(), &[], |context| {
            PreparedRun::new(plan, None, context).unwrap().identity()
        })
    };
    let cpu = Device::cpu(1).unwrap();
    let before = [identity(&cpu, &plan()), identity(&cpu, &started)];
    assert_eq!(identity(&Device::cpu(2).unwrap(), &plan()), before[0]);
    let portable = vgg_tensor::DeviceConfig {
        kind: vgg_tensor::DeviceKind::Cpu,
        threads: 1,
        instruction_set: Some("portable".into()),
        ..Default::default()
    };
    assert_ne!(identity(&Device::open(&portable).unwrap(), &plan()), before[0]);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(identity(&cpu, &plan()), before[0]);
    assert_ne!(identity(&cpu, &started), before[1]);
    let image = picture_path(&dir.path().join("set"), "val", 3);
    std::fs::rename(&image, image.with_file_name("renamed.png")).unwrap();
    assert_ne!(identity(&cpu, &plan()), before[0]);
}

#[test]
fn directories_that_hold_something_else_are_refused() {
    let dir = workplace();
    for name in ["weights.safetensors", "checkpoints", "metrics.jsonl", "metrics.csv", "timing.jsonl"] {
        let out = dir.path().join("foreign");
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join(name), b"mine").unwrap();
        let message = train(dir.path(), &plan(), &out, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("give another directory"), "{message}");
        assert_eq!(std::fs::read(out.join(name)).unwrap(), b"mine");
        std::fs::remove_dir_all(&out).unwrap();
    }
    // A finished run of other settings that may differ needs a checkpoint to go on from.
    let out = dir.path().join("run");
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    let longer = RunPlan { train: TrainConfig { max_epochs: 4, ..plan().train }, ..plan() };
    let may_differ = ["train.max_epochs".to_owned()];
    let go_on = || {
        in_context(dir.path(), &may_differ, |context| {
            let run = PreparedRun::new(&longer, None, context).unwrap();
            run.train(&out, Resume::Auto, context, &mut |_| ()).map(Option::unwrap)
        })
    };
    vgg_train::remove_checkpoints(&out).unwrap();
    let message = go_on().unwrap_err().to_string();
    assert!(message.contains("no checkpoint of it to go on from"), "{message}");
    std::fs::remove_dir_all(&out).unwrap();
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    assert_eq!(go_on().unwrap().epochs, 4);
}
