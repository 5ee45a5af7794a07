//! Files of an analysis: errors per class, confusion matrix and mistakes as CSV; confusion matrix and
//! mistakes as PNG.

use std::path::Path;

use ndarray::{Array2, s};
use vgg_data::{
    Image, ImageSet, Interpolation, LINE, Split, captioned_sheet, draw_text, resize, scaled_size, write_png,
};
use vgg_error::printable;
use vgg_files::remove_file;

use crate::{ClassErrors, Error, Posteriors, Result, confusion_picture, readable_names};

/// Maximum number of classes for which the picture of the confusion matrix has names.
const NAMED: usize = 40;
/// Width of a letter in pixels, and maximum letters of a name.
const LETTER: usize = 8;
const LETTERS: usize = 24;
/// Maximum side of an image on the sheet of mistakes in pixels, and images per row.
const TILE: usize = 176;
const COLUMNS: usize = 6;

/// Names of the files.
const CLASSES: &str = "classes.csv";
const CONFUSION: &str = "confusion.csv";
const PICTURE: &str = "confusion.png";
const MISTAKES: &str = "mistakes.csv";
const SHEET: &str = "mistakes.png";

/// The analysis of posteriors.
pub struct Analysis<'a> {
    posteriors: &'a Posteriors,
    /// Names of the classes, as [`readable_names`] returns them.
    pub class_names: Vec<String>,
    /// Errors of each class.
    pub classes: Vec<ClassErrors>,
    /// Numbers of images by true class (rows) and predicted class (columns).
    pub confusion: Array2<u32>,
}

impl<'a> Analysis<'a> {
    /// Names of the files that [`Analysis::write`] writes or removes.
    pub const FILES: [&'static str; 5] = [CLASSES, CONFUSION, PICTURE, MISTAKES, SHEET];

    /// Analyses posteriors.
    ///
    /// # Errors
    /// As [`Posteriors::confusion`].
    pub fn new(posteriors: &'a Posteriors) -> Result<Analysis<'a>> {
        let known = &posteriors.origin.classes;
        let columns = posteriors.values.ncols();
        let mut class_names = readable_names(&known[..known.len().min(columns)]);
        let unnamed = class_names.len()..columns;
        class_names.extend(unnamed.map(|i| format!("class {i}")));
        Ok(Analysis {
            posteriors,
            class_names,
            classes: posteriors.class_errors(),
            confusion: posteriors.confusion()?,
        })
    }

    /// Writes `classes.csv`, `confusion.csv`, `confusion.png` and `mistakes.csv` to `dir`, and `mistakes.png`
    /// if there is a `sheet` (see [`Analysis::mistakes_sheet`]); otherwise removes an existing
    /// `mistakes.png`. Returns the names of the files.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Data`] if a file cannot be written.
    pub fn write(&self, dir: &Path, sheet: Option<&Image>) -> Result<Vec<&'static str>> {
        self.write_csv(&dir.join(CLASSES), |csv| self.classes_csv(csv))?;
        self.write_csv(&dir.join(CONFUSION), |csv| self.confusion_csv(csv))?;
        write_png(&dir.join(PICTURE), &self.labelled_confusion())?;
        self.write_csv(&dir.join(MISTAKES), |csv| self.mistakes_csv(csv))?;
        let mut written = vec![CLASSES, CONFUSION, PICTURE, MISTAKES];
        match sheet {
            Some(sheet) => {
                write_png(&dir.join(SHEET), sheet)?;
                written.push(SHEET);
            }
            None => remove_file(&dir.join(SHEET))?,
        }
        Ok(written)
    }

    /// The classes with the largest top-1 errors, at most `most`.
    pub fn worst_classes(&self, most: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.classes.len()).filter(|i| self.classes[*i].top1.n > 0).collect();
        let error = |class: usize| self.classes[class].top1.rate();
        order.sort_by(|a, b| error(*b).total_cmp(&error(*a)).then(a.cmp(b)));
        order.truncate(most);
        order
    }

    /// A contact sheet of the mistakes with the largest posteriors, at most `most`, each with true and
    /// predicted class; `None` if there are no mistakes.
    ///
    /// # Errors
    /// [`Error::Config`] if `root` is not their data set; [`Error::Data`] if an image cannot be read.
    pub fn mistakes_sheet(&self, root: &Path, most: usize) -> Result<Option<Image>> {
        let set = self.split(root)?;
        let posteriors = self.posteriors;
        let mut tiles = Vec::new();
        for m in posteriors.mistakes().into_iter().take(most) {
            let path = &posteriors.paths[m.image];
            let gone = || Error::Config(format!("the data set has no image {path}"));
            let index = (0..set.len()).find(|i| set.path(*i) == path.as_str()).ok_or_else(gone)?;
            let image = set.image(index)?;
            let (h, w, _) = image.dim();
            let (h, w) = scaled_size(h, w, (TILE * h.min(w) / h.max(w)).max(1));
            let class = first_name(&self.class_names[posteriors.labels[m.image] as usize]);
            let said = format!("{:.0} % {}", 100.0 * m.posterior, first_name(&self.class_names[m.predicted]));
            let tile = resize(&image, h.min(TILE), w.min(TILE), Interpolation::Bilinear)?;
            tiles.push((tile, vec![class.to_owned(), said]));
        }
        if tiles.is_empty() {
            return Ok(None);
        }
        Ok(Some(captioned_sheet(&tiles, COLUMNS, TILE)?))
    }

    /// Opens the split of the posteriors.
    fn split(&self, root: &Path) -> Result<ImageSet> {
        for split in [Split::Val, Split::Train] {
            let set = ImageSet::open(root, split)?;
            if set.hash().as_str() == self.posteriors.origin.dataset {
                return Ok(set);
            }
        }
        Err(Error::Config(format!("{} is not the data set of these posteriors", printable(root))))
    }

    /// The picture of the confusion matrix, with class names beside the rows and class numbers above the
    /// columns if there are at most 40 classes.
    fn labelled_confusion(&self) -> Image {
        let picture = confusion_picture(self.confusion.view());
        let names = &self.class_names;
        let (h, w, _) = picture.dim();
        let cell = h / names.len().max(1);
        if names.len() > NAMED {
            return picture;
        }
        let (top, left) = (2 * LINE + 8, LETTER * (LETTERS + 4));
        let mut whole = Image::from_elem((top + h, left + w, 3), 255);
        whole.slice_mut(s![top.., left.., ..]).assign(&picture);
        draw_text(&mut whole, "true class", LINE + 4, 4);
        draw_text(&mut whole, "predicted class", 2, left);
        for (i, name) in names.iter().enumerate() {
            let short: String = first_name(name).chars().take(LETTERS).collect();
            let middle = i * cell + cell / 2;
            draw_text(&mut whole, &format!("{i:2} {short}"), top + middle - LINE / 2, 4);
            let number = i.to_string();
            draw_text(&mut whole, &number, LINE + 4, left + middle - LETTER * number.len() / 2);
        }
        whole
    }

    fn write_csv(&self, path: &Path, rows: impl FnOnce(&mut Csv) -> csv::Result<()>) -> Result<()> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let bytes = rows(&mut csv).and_then(|()| csv.into_inner().map_err(|e| e.into_error().into()));
        let bytes = bytes.map_err(|e| Error::Internal(format!("{}: {e}", printable(path))))?;
        Ok(vgg_files::write_bytes(path, &bytes)?)
    }

    fn classes_csv(&self, csv: &mut Csv) -> csv::Result<()> {
        csv.write_record(["class", "name", "n", "top1_error", "top1_low", "top1_high", "top5_error"])?;
        for (i, (name, ClassErrors { top1, top5 })) in self.class_names.iter().zip(&self.classes).enumerate()
        {
            let [low, high] = top1.interval().map(|share| format!("{share:.6}"));
            let (error, top5_error) = (top1.rate().to_string(), top5.rate().to_string());
            csv.write_record([&i.to_string(), name, &top1.n.to_string(), &error, &low, &high, &top5_error])?;
        }
        Ok(())
    }

    /// Rows are true classes, columns predicted classes.
    fn confusion_csv(&self, csv: &mut Csv) -> csv::Result<()> {
        csv.write_record([&"true class".to_owned()].into_iter().chain(&self.class_names))?;
        for (name, row) in self.class_names.iter().zip(self.confusion.rows()) {
            let counts = row.iter().map(u32::to_string);
            csv.write_record([name.clone()].into_iter().chain(counts))?;
        }
        Ok(())
    }

    fn mistakes_csv(&self, csv: &mut Csv) -> csv::Result<()> {
        csv.write_record(["path", "true_class", "predicted_class", "predicted_posterior", "true_posterior"])?;
        for m in self.posteriors.mistakes() {
            let label = self.posteriors.labels[m.image] as usize;
            let own = format!("{:.6}", self.posteriors.values[[m.image, label]]);
            let (path, posterior) = (&self.posteriors.paths[m.image], format!("{:.6}", m.posterior));
            let (class, predicted) = (&self.class_names[label], &self.class_names[m.predicted]);
            csv.write_record([path, class, predicted, &posterior, &own])?;
        }
        Ok(())
    }
}

type Csv = csv::Writer<Vec<u8>>;

/// The first of several comma-separated names.
fn first_name(name: &str) -> &str {
    name.split(',').next().unwrap_or(name)
}
