//! The identity of a run, field by field, and directories with other contents.

mod one_run;

use std::path::Path;

use one_run::{changed, in_context, in_context_on, plan, start_from, train, workplace};
use vgg_data::{Interpolation, OnBadImage};
use vgg_experiment::{Error, PixelScale, PreparedRun, RunPlan};
use vgg_layers::{Config, Device, Init, LayerSelection, LrnStyle, PoolRounding};
use vgg_testkit::picture_path;
use vgg_train::{MomentumVariant, Resume, Schedule};

/// Plans that each differ in a setting that determines the run.
fn other_plans(file: &Path) -> Vec<RunPlan> {
    let start = |map| changed(|plan| start_from(plan, file, map));
    vec![
        changed(|plan| plan.network.config = Config::B),
        changed(|plan| plan.network.width = 0.125),
        changed(|plan| plan.network.head = [14, 18]),
        changed(|plan| plan.network.dropout = 0.5),
        changed(|plan| plan.network.lrn_style = LrnStyle::Caffe),
        changed(|plan| plan.network.pool_rounding = PoolRounding::Ceil),
        changed(|plan| {
            plan.data.crop = 64;
            plan.data.train_scale = [64, 64];
            plan.validate.test_scale = 64;
        }),
        changed(|plan| plan.network.init.scheme = Init::GlorotNormal),
        start(LayerSelection::AllMatching),
        start(LayerSelection::Layers(vec!["fc7".into()])),
        start(LayerSelection::Paper),
        changed(|plan| {
            start_from(plan, file, LayerSelection::Paper);
            plan.data.pixel_scale = PixelScale::Inherit;
        }),
        changed(|plan| plan.data.train_scale = [36, 49]),
        changed(|plan| plan.data.train_scale = [37, 48]),
        changed(|plan| plan.data.interpolation = Interpolation::Nearest),
        changed(|plan| plan.data.flip = false),
        changed(|plan| plan.data.pca_jitter_std = 0.25),
        changed(|plan| plan.data.pixel_scale = PixelScale::Fixed(1.0)),
        changed(|plan| plan.data.pixel_scale = PixelScale::Torchvision),
        changed(|plan| plan.data.on_bad_image = OnBadImage::Skip),
        changed(|plan| plan.optimizer.micro_batch = 2),
        changed(|plan| plan.run.max_epochs = 4),
        changed(|plan| plan.validate.every_epochs = 2),
        changed(|plan| plan.run.seed = 6),
        changed(|plan| plan.schedule = Schedule::Constant { lr: 0.02 }),
        changed(|plan| plan.schedule = Schedule::Steps { lr: 0.02, gamma: 0.2, milestones: vec![1] }),
        changed(|plan| plan.optimizer.momentum_variant = MomentumVariant::Torch),
        changed(|plan| plan.optimizer.momentum = 0.9),
        changed(|plan| plan.optimizer.weight_decay = 0.1),
        changed(|plan| plan.optimizer.decay_biases = true),
        changed(|plan| plan.optimizer.bias_lr_mult = 1.0),
        changed(|plan| plan.optimizer.batch = 5),
        changed(|plan| plan.validate.test_scale = 41),
        changed(|plan| plan.network.train_layers = Some(vec!["fc8".into()])),
    ]
}

#[test]
fn identity_has_every_setting_that_determines_a_run() {
    let dir = workplace();
    let out = dir.path().join("run");
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    let others = other_plans(&dir.path().join("start.safetensors"));
    in_context(dir.path(), &[], |context| {
        let identity = |plan: &RunPlan| PreparedRun::new(plan, None, context).unwrap().identity();
        let mut seen = vec![identity(&plan())];
        for other in &others {
            let own = identity(other);
            assert!(!seen.contains(&own), "identity is not unique: {other:?}");
            seen.push(own);
            let refused = PreparedRun::new(other, None, context).unwrap().train(
                &out,
                Resume::Auto,
                context,
                &mut |_| (),
            );
            assert!(matches!(refused, Err(Error::Train(vgg_train::Error::OtherRun { .. }))), "{other:?}");
        }
        // Settings that do not determine a run.
        let classes = changed(|plan| plan.network.classes = Some(7));
        let paper = Some("Table 3".to_owned());
        let named = RunPlan { name: "other".into(), may_diverge: true, paper, ..plan() };
        let enlarged = changed(|plan| plan.data.enlarge = true);
        for same in [classes, named, enlarged] {
            assert_eq!(identity(&same), seen[0], "{same:?}");
        }
    });
}

#[test]
fn identity_has_images_initial_weights_and_instruction_set_but_not_threads() {
    let dir = workplace();
    let file = dir.path().join("start.safetensors");
    let started = changed(|plan| start_from(plan, &file, LayerSelection::AllMatching));
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
fn directories_with_other_contents_are_refused() {
    let dir = workplace();
    for name in ["weights.safetensors", "checkpoints", "metrics.jsonl", "metrics.csv", "timing.jsonl"] {
        let out = dir.path().join("foreign");
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join(name), b"mine").unwrap();
        let message = train(dir.path(), &plan(), &out, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("choose another directory"), "{message}");
        assert_eq!(std::fs::read(out.join(name)).unwrap(), b"mine");
        std::fs::remove_dir_all(&out).unwrap();
    }
    // A finished run with allowed changes needs a checkpoint to be extended.
    let out = dir.path().join("run");
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    let longer = changed(|plan| plan.run.max_epochs = 4);
    let allow_changes = ["run.max_epochs".to_owned()];
    let go_on = || {
        in_context(dir.path(), &allow_changes, |context| {
            let run = PreparedRun::new(&longer, None, context).unwrap();
            run.train(&out, Resume::Auto, context, &mut |_| ()).map(Option::unwrap)
        })
    };
    vgg_train::remove_checkpoints(&out).unwrap();
    let message = go_on().unwrap_err().to_string();
    assert!(message.contains("no checkpoint to resume from"), "{message}");
    std::fs::remove_dir_all(&out).unwrap();
    train(dir.path(), &plan(), &out, &mut |_| ()).unwrap();
    assert_eq!(go_on().unwrap().epochs, 4);
}
