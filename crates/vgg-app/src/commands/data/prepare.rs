//! `vgg data prepare-imagenet`, `prepare-folder` and `merge`: published data sets to shards.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use vgg_data::prepare::{
    Estimate, Event, Files, Ilsvrc, IlsvrcOptions, Layout, PrepareOptions, Source, estimate, merge, prepare,
    unrecorded_anomalies,
};
use vgg_data::{Encoding, INDEX_FILE, ImageSet, Manifest, OnBadImage, Partition, Split};
use vgg_error::printable;

use crate::commands::data_options::say_ignored;
use crate::commands::options::choice;
use crate::console::{Interrupt, Progress, clock, note, out, warning};
use crate::exit::UsageError;

#[derive(Args)]
pub(crate) struct PrepareImagenet {
    /// Folder with ILSVRC2012_img_train.tar (or the 1,000 class archives in train), ILSVRC2012_img_val.tar,
    /// ILSVRC2012_devkit_t12.tar.gz (or its contents) and, for boxes, ILSVRC2012_bbox_train_v2.tar.gz and
    /// ILSVRC2012_bbox_val_v3.tgz; or Kaggle's files, unpacked; or train and val with class folders, or with the class
    /// in the name of each image.
    #[arg(long)]
    archives: PathBuf,
    /// Accept a folder that lacks a split, classes or images, and list what is missing.
    #[arg(long)]
    allow_incomplete: bool,
    /// Skip the check of the archives' MD5 sums against the official ones.
    #[arg(long)]
    skip_md5: bool,
    #[command(flatten)]
    prepare: PrepareArgs,
}

#[derive(Args)]
pub(crate) struct PrepareFolder {
    /// Folder of the data set.
    #[arg(long)]
    dataset: PathBuf,
    /// Layout of its files.
    #[arg(long, default_value = "folders")]
    layout: FolderLayout,
    /// Training images per class, with --layout caltech.
    #[arg(long, default_value_t = 30)]
    train_per_class: usize,
    /// Maximum number of test images per class, with --layout caltech.
    #[arg(long, default_value_t = 50)]
    test_per_class: usize,
    /// Seed of the random split, with --layout caltech, or voc without ImageSets.
    #[arg(long, default_value_t = 1)]
    split_seed: u64,
    #[command(flatten)]
    prepare: PrepareArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum FolderLayout {
    /// train/<class>/* and val/<class>/*.
    Folders,
    /// Tiny ImageNet, as published.
    TinyImagenet,
    /// Caltech-101 and Caltech-256: class folders without splits.
    Caltech,
    /// PASCAL VOC: JPEGImages, Annotations, ImageSets.
    Voc,
    /// CIFAR-10's binary version.
    Cifar10,
}

#[derive(Args)]
pub(crate) struct Merge {
    /// Folders of all parts.
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Output folder, which must be empty.
    #[arg(long)]
    out: PathBuf,
    /// Accept parts that lack classes or images, and list what is missing.
    #[arg(long)]
    allow_incomplete: bool,
}

#[derive(Args)]
struct PrepareArgs {
    /// Output folder. Rerun the same command to resume an interrupted preparation.
    #[arg(long)]
    out: PathBuf,
    /// Downscale larger images to this smallest side; 0 keeps all sizes.
    #[arg(long, default_value_t = 512)]
    smallest_side: usize,
    /// Stored encoding: jpeg, or raw pixels, which need no decoding but ten times the space.
    #[arg(long, default_value = "jpeg")]
    encoding: Kind,
    /// JPEG quality of images that were downscaled or were not JPEG; other JPEG files are copied unchanged.
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Maximum size of a shard in MiB.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    shard_mib: u64,
    /// Prepare only part i of n, for several machines; join the parts with `vgg data merge`.
    #[arg(long, value_name = "i/n", default_value = "1/1")]
    part: Partition,
    /// Number of threads for decoding and encoding; 0 uses one per core. The result does not depend on it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    threads: u16,
    /// What to do with an image that cannot be decoded or has no valid annotation: skip and list it in index.json, or
    /// stop.
    #[arg(long, default_value = "skip", value_parser = choice(&OnBadImage::ALL))]
    on_bad_image: OnBadImage,
    /// Print inputs, space and time, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Jpeg,
    Raw,
}

impl PrepareImagenet {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (dir, allow_incomplete) = (&self.archives, self.allow_incomplete);
        let unpacked = ["ILSVRC", "train", "val"].into_iter().any(|folder| dir.join(folder).is_dir());
        if unpacked && !Ilsvrc::are_in(dir)? {
            return self.prepare.run(&Files::open(dir, Layout::Imagenet { allow_incomplete })?);
        }
        let source = Ilsvrc::open(dir, IlsvrcOptions { allow_incomplete, skip_md5: self.skip_md5 })?;
        for name in source.missing_box_archives() {
            note(&format!(
                "note: {} has no {name}: images of that split get no bounding boxes",
                printable(dir)
            ));
        }
        self.prepare.run(&source)
    }
}

impl PrepareFolder {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (train_per_class, test_per_class, seed) =
            (self.train_per_class, self.test_per_class, self.split_seed);
        let layout = match self.layout {
            FolderLayout::Folders => Layout::Folders,
            FolderLayout::TinyImagenet => Layout::TinyImagenet,
            FolderLayout::Caltech => Layout::Caltech { train_per_class, test_per_class, seed },
            FolderLayout::Voc => Layout::Voc { seed },
            FolderLayout::Cifar10 => Layout::Cifar10,
        };
        let source = Files::open(&self.dataset, layout);
        // If the folder does not exist, the layout is not the reason.
        let source = if self.dataset.is_dir() { source.with_context(|| self.unreadable())? } else { source? };
        if matches!(layout, Layout::Folders) {
            for split in ImageSet::splits_in(&self.dataset)? {
                say_ignored(&ImageSet::open(&self.dataset, split)?);
            }
        }
        self.prepare.run(&source)
    }

    fn unreadable(&self) -> String {
        let layout = self.layout.to_possible_value();
        let layout = layout.map_or(String::new(), |value| value.get_name().to_owned());
        format!("{} cannot be read with --layout {layout}", printable(&self.dataset))
    }
}

impl Merge {
    pub(crate) fn run(self) -> Result<()> {
        merge(&self.parts, &self.out, self.allow_incomplete)?;
        tell(&self.out)
    }
}

impl PrepareArgs {
    fn run(self, source: &dyn Source) -> Result<ExitCode> {
        let threads = if self.threads == 0 { vgg::system::cores() } else { usize::from(self.threads) };
        if (1..32).contains(&self.smallest_side) {
            return Err(UsageError("--smallest-side must be at least 32, or 0".into()).into());
        }
        let encoding = match self.encoding {
            Kind::Jpeg => Encoding::Jpeg { quality: self.quality },
            Kind::Raw => Encoding::Raw,
        };
        let options = PrepareOptions {
            smallest_side: (self.smallest_side > 0).then_some(self.smallest_side),
            encoding,
            shard_bytes: self.shard_mib << 20,
            part: self.part,
        };
        if self.dry_run {
            let planned = estimate(source, &options, &self.out, threads)?;
            print_estimate(source, &planned)?;
            planned.check()?;
            return Ok(ExitCode::SUCCESS);
        }
        let interrupt = Interrupt::listen()?;
        match with_progress(source, &options, &self.out, threads, self.on_bad_image, &interrupt) {
            Err(vgg_data::Error::Interrupted) => {
                note("interrupted; rerun the same command to resume from the last complete shard");
                return Ok(interrupt.exit_code().into());
            }
            other => other?,
        }
        if !self.part.is_whole() {
            writeln!(out(), "part {} is complete; join the parts with vgg data merge", self.part)?;
            return Ok(ExitCode::SUCCESS);
        }
        tell(&self.out)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn with_progress(
    source: &dyn Source,
    options: &PrepareOptions,
    out: &Path,
    threads: usize,
    on_bad_image: OnBadImage,
    interrupt: &Interrupt,
) -> vgg_data::Result<()> {
    let expected = |split: Split| source.expected(split).map_or(0, |of_class| of_class.iter().sum());
    let mut progress: Option<(Split, Progress)> = None;
    let mut kept = 0;
    let mut bad = None;
    let prepared = prepare(source, options, out, threads, &mut |event| {
        match event {
            Event::Skipped(path, reason) if on_bad_image == OnBadImage::Stop => {
                bad = Some(vgg_data::Error::Decode { path: path.into(), reason: reason.to_owned() });
                return ControlFlow::Break(());
            }
            Event::Images(split, done) => {
                if progress.as_ref().is_none_or(|(of, _)| *of != split) {
                    progress = Some((split, Progress::new(split.name(), expected(split))));
                }
                if let Some((_, progress)) = &mut progress {
                    progress.at(done, || format!("{done} images"));
                }
            }
            Event::Kept(..) => kept += 1,
            Event::Skipped(path, reason) => warning(&format!("skipped: {path}: {reason}")),
        }
        if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bad.map_or(prepared, Err)?;
    if kept > 0 {
        note(&format!("{kept} parts of the input were already prepared"));
    }
    Ok(())
}

fn print_estimate(source: &dyn Source, estimate: &Estimate) -> Result<()> {
    let mut to = out();
    let gib = |bytes: u64| match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 100.0 => format!("{mib:.2} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    };
    writeln!(to, "{}, {} classes", source.name(), source.classes().len())?;
    const SHOWN: usize = 8;
    for (path, bytes) in estimate.inputs.iter().take(SHOWN) {
        writeln!(to, "  {}  {}", gib(*bytes), printable(path))?;
    }
    if estimate.inputs.len() > SHOWN {
        let rest: u64 = estimate.inputs[SHOWN..].iter().map(|(_, bytes)| bytes).sum();
        writeln!(to, "  {}  {} more files", gib(rest), estimate.inputs.len() - SHOWN)?;
    }
    let (needed, free) = (gib(estimate.needed_bytes), gib(estimate.free_bytes));
    writeln!(
        to,
        "{}: at most {needed}, {} written, {free} free",
        printable(&estimate.out),
        gib(estimate.written_bytes)
    )?;
    let time = std::time::Duration::from_secs_f64(estimate.seconds);
    writeln!(to, "about {} at 200 images/s per thread", clock(time))?;
    Ok(())
}

fn tell(dir: &Path) -> Result<()> {
    let manifest = Manifest::read(dir)?;
    let mut to = out();
    for (split, own) in &manifest.splits {
        let (shards, bytes) = (own.shards.len(), own.shards.iter().map(|shard| shard.bytes).sum::<u64>());
        let mib = bytes as f64 / f64::from(1 << 20);
        let plural = if shards == 1 { "shard" } else { "shards" };
        writeln!(to, "{}: {} images in {shards} {plural}, {mib:.1} MiB", split.name(), own.images)?;
        for (what, count) in [
            ("unusual", own.anomalies.len()),
            ("skipped", own.skipped.len()),
            ("incomplete classes", own.missing.len()),
        ] {
            if count > 0 {
                writeln!(to, "  {what}: {count}, listed in {INDEX_FILE}")?;
            }
        }
        match unrecorded_anomalies(own).as_deref() {
            Some([]) => writeln!(to, "  the known irregular files of ILSVRC-2012 are as expected")?,
            Some(lines) => lines.iter().try_for_each(|line| writeln!(to, "  {line}"))?,
            None => {}
        }
    }
    writeln!(to, "{}", printable(dir))?;
    Ok(())
}
