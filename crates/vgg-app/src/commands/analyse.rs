//! `vgg analyse`: what lies behind an error rate.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use ndarray::s;
use vgg_data::{
    Filter, Image, ImageSet, LINE, Split, captioned_sheet, draw_text, imagenet, resize, scaled_size,
    write_png,
};
use vgg_eval::{ClassErrors, Posteriors};

use super::posteriors::{errors, errors_in_words};
use crate::console::{out, print_table};
use crate::exit::UsageError;

/// Classes whose names fit beside a picture of them.
const NAMED: usize = 40;
/// Width of a letter, and letters of a name.
const LETTER: usize = 8;
const LETTERS: usize = 24;

/// Files that are written.
const CLASSES: &str = "classes.csv";
const CONFUSION: &str = "confusion.csv";
const PICTURE: &str = "confusion.png";
const MISTAKES: &str = "mistakes.csv";
const SHEET: &str = "mistakes.png";
/// Side of an image on the sheet of mistakes, and images in a row.
const TILE: usize = 176;
const COLUMNS: usize = 6;
/// Classes that are shown on the terminal.
const WORST: usize = 10;

#[derive(Args)]
pub(crate) struct Analyse {
    /// Posterior file, as `vgg evaluate --posteriors` writes it.
    posteriors: PathBuf,
    /// Folder to write classes.csv, confusion.csv, confusion.png and mistakes.csv to.
    #[arg(long)]
    out: PathBuf,
    /// The data set, for mistakes.png: the images of the surest mistakes with what was said of them.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// How many mistakes.
    #[arg(long, default_value_t = 36)]
    mistakes: usize,
}

impl Analyse {
    pub(crate) fn run(self) -> Result<()> {
        let posteriors = Posteriors::load(&self.posteriors)?;
        let names = names(&posteriors);
        // First what may be refused.
        let sheet = match &self.dataset {
            Some(dataset) => sheet(&posteriors, &names, &split_of(&posteriors, dataset)?, self.mistakes)?,
            None => None,
        };
        std::fs::create_dir_all(&self.out)?;
        let write = |name: &str, text: String| vgg_files::write_bytes(&self.out.join(name), text.as_bytes());
        let of_classes = posteriors.class_errors();
        write(CLASSES, classes_csv(&names, &of_classes))?;
        let confusion = posteriors.confusion()?;
        write(CONFUSION, confusion_csv(&names, &confusion))?;
        let picture = labelled(&vgg_eval::confusion_picture(confusion.view()), &names);
        write_png(&self.out.join(PICTURE), &picture)?;
        let mut written = vec![CLASSES, CONFUSION, PICTURE, MISTAKES];
        write(MISTAKES, mistakes_csv(&names, &posteriors))?;
        match sheet {
            Some(sheet) => {
                write_png(&self.out.join(SHEET), &sheet)?;
                written.push(SHEET);
            }
            // One of other posteriors would be taken for these.
            None => remove(&self.out.join(SHEET))?,
        }
        writeln!(out(), "{} images: {}", posteriors.labels.len(), errors_in_words(&errors(&posteriors)))?;
        worst(&names, &of_classes)?;
        writeln!(out(), "{} has {}", self.out.display(), written.join(", "))?;
        Ok(())
    }
}

/// A confusion matrix with the names of true classes beside its rows, and their numbers above its columns; of many classes, as it
/// is.
fn labelled(picture: &Image, names: &[String]) -> Image {
    let (h, w, _) = picture.dim();
    let cell = h / names.len().max(1);
    if names.len() > NAMED || cell < LINE {
        return picture.clone();
    }
    let (top, left) = (2 * LINE + 8, LETTER * (LETTERS + 4));
    let mut whole = Image::from_elem((top + h, left + w, 3), 255);
    whole.slice_mut(s![top.., left.., ..]).assign(picture);
    draw_text(&mut whole, "true class", (LINE + 4, 4));
    draw_text(&mut whole, "answer", (2, left));
    for (i, name) in names.iter().enumerate() {
        let short: String = first_name(name).chars().take(LETTERS).collect();
        let middle = i * cell + cell / 2;
        draw_text(&mut whole, &format!("{:2} {short}", i + 1), (top + middle - LINE / 2, 4));
        let number = (i + 1).to_string();
        draw_text(&mut whole, &number, (LINE + 4, left + middle - LETTER * number.len() / 2));
    }
    whole
}

/// The first of several names.
fn first_name(name: &str) -> &str {
    name.split(',').next().unwrap_or(name)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The split that these are the posteriors of.
fn split_of(posteriors: &Posteriors, dataset: &Path) -> Result<ImageSet> {
    for split in [Split::Val, Split::Train] {
        let set = ImageSet::open(dataset, split)?;
        if set.hash().as_str() == posteriors.origin.dataset {
            return Ok(set);
        }
    }
    let what = format!("{} is not the data set of these posteriors", dataset.display());
    Err(UsageError(what).into())
}

/// Names of the classes for people.
fn names(posteriors: &Posteriors) -> Vec<String> {
    let known = &posteriors.origin.classes;
    let name = |i: usize| {
        known.get(i).map_or_else(|| format!("class {i}"), |id| imagenet::words(id).unwrap_or(id).to_owned())
    };
    (0..posteriors.values.ncols()).map(name).collect()
}

fn worst(names: &[String], classes: &[ClassErrors]) -> Result<()> {
    let mut order: Vec<usize> = (0..classes.len()).filter(|i| classes[*i].top1.n > 0).collect();
    order.sort_by(|a, b| classes[*b].top1.rate().total_cmp(&classes[*a].top1.rate()).then(a.cmp(b)));
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let rows = order.into_iter().take(WORST).map(|i| {
        let (top1, top5) = (classes[i].top1, classes[i].top5);
        let [low, high] = top1.interval();
        let interval = format!("{} to {}", percent(low), percent(high));
        vec![names[i].clone(), top1.n.to_string(), percent(top1.rate()), interval, percent(top5.rate())]
    });
    let head = ["worst classes", "images", "top-1 error, %", "95 %", "top-5"].map(str::to_owned);
    print_table(&head, &rows.collect::<Vec<_>>())?;
    Ok(())
}

fn classes_csv(names: &[String], classes: &[ClassErrors]) -> String {
    let mut text = String::from("class,name,n,top1_error,top1_low,top1_high,top5_error\n");
    for (i, (name, ClassErrors { top1, top5 })) in names.iter().zip(classes).enumerate() {
        let ([low, high], name) = (top1.interval(), quoted(name));
        text += &format!("{i},{name},{},{},{low:.6},{high:.6},{}\n", top1.n, top1.rate(), top5.rate());
    }
    text
}

/// Rows are true classes, columns the most likely ones.
fn confusion_csv(names: &[String], confusion: &ndarray::Array2<u32>) -> String {
    let head: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let mut text = format!("true class,{}\n", head.join(","));
    for (name, row) in head.iter().zip(confusion.rows()) {
        let cells: Vec<String> = row.iter().map(u32::to_string).collect();
        text += &format!("{name},{}\n", cells.join(","));
    }
    text
}

fn mistakes_csv(names: &[String], posteriors: &Posteriors) -> String {
    let mut text = String::from("path,class,predicted,posterior,posterior_of_class\n");
    for m in posteriors.mistakes() {
        let label = posteriors.labels[m.image] as usize;
        let (path, own) = (quoted(&posteriors.paths[m.image]), posteriors.values[[m.image, label]]);
        let (class, predicted) = (quoted(&names[label]), quoted(&names[m.predicted]));
        text += &format!("{path},{class},{predicted},{:.6},{own:.6}\n", m.posterior);
    }
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The images of the surest mistakes, each with its class, and what was said in its place; `None` if there are none.
fn sheet(posteriors: &Posteriors, names: &[String], set: &ImageSet, most: usize) -> Result<Option<Image>> {
    let mut tiles = Vec::new();
    for m in posteriors.mistakes().into_iter().take(most) {
        let path = &posteriors.paths[m.image];
        let gone = || UsageError(format!("the data set has no image {path}"));
        let image = set.image((0..set.len()).find(|i| set.path(*i) == path.as_str()).ok_or_else(gone)?)?;
        let (h, w, _) = image.dim();
        let short = (TILE * h.min(w) / h.max(w)).max(1);
        let (h, w) = scaled_size(h, w, short);
        let label = posteriors.labels[m.image] as usize;
        let said = format!("{:.0} % {}", 100.0 * m.posterior, first_name(&names[m.predicted]));
        tiles.push((
            resize(&image, h.min(TILE), w.min(TILE), Filter::Bilinear)?,
            vec![first_name(&names[label]).to_owned(), said],
        ));
    }
    if tiles.is_empty() {
        return Ok(None);
    }
    Ok(Some(captioned_sheet(&tiles, COLUMNS, TILE)?))
}
