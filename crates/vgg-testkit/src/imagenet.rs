//! Small archives in the format of ILSVRC2012: a tar of tars, validation images, development kit and boxes.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// Number of classes in the development kit.
const CLASSES: usize = 1000;
/// Number of validation images in the development kit.
const VALIDATION_IMAGES: usize = 50_000;

/// A class: ILSVRC2012_ID, WNID and words.
pub type KitClass = (u32, String, String);

/// A file in an archive: name and contents.
pub type Member = (String, Vec<u8>);

/// Contents of the archives. A test may change them before [`FakeImagenet::write`].
pub struct FakeImagenet {
    /// Classes in the order of ILSVRC2012_ID, which is not WNID order.
    pub classes: Vec<KitClass>,
    /// ILSVRC2012_ID of each validation image.
    pub truth: Vec<u32>,
    /// Training images per class: WNID, then name and contents of each image.
    pub train: Vec<(String, Vec<Member>)>,
    /// Validation images: name and contents.
    pub val: Vec<Member>,
    /// Annotations of training images: name in the archive, and XML.
    pub train_boxes: Vec<(String, String)>,
    /// Annotations of validation images: name in the archive, and XML.
    pub val_boxes: Vec<(String, String)>,
    /// Whether `meta.mat` is compressed, as by MATLAB's default.
    pub compressed: bool,
}

/// Names of the archives.
pub const ARCHIVES: [&str; 5] = [
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_devkit_t12.tar.gz",
    "ILSVRC2012_bbox_train_v2.tar.gz",
    "ILSVRC2012_bbox_val_v3.tgz",
];

impl FakeImagenet {
    /// Distributes `images` over three training classes, each image with a box; the same images are also
    /// validation images.
    pub fn new(images: &[Vec<u8>]) -> FakeImagenet {
        // Number i has the WNID at index 7 i, so that no number equals its index.
        let wnid = |place: usize| format!("n{:08}", 1_000_000 + 13 * place);
        let class = |i: usize| (i as u32 + 1, wnid(7 * (i + 1) % CLASSES), format!("word {i}, other word"));
        let classes: Vec<KitClass> = (0..CLASSES).map(class).collect();
        let truth: Vec<u32> = (0..VALIDATION_IMAGES).map(|i| (i % CLASSES) as u32 + 1).collect();
        let mut train = Vec::new();
        let mut train_boxes = Vec::new();
        for (which, part) in images.chunks(images.len().div_ceil(3)).enumerate() {
            let wnid = wnid(400 * which + 3);
            let image =
                |(i, bytes): (usize, &Vec<u8>)| (format!("{wnid}_{}.JPEG", 10 * i + 1), bytes.clone());
            for i in 0..part.len() {
                train_boxes.push((format!("{wnid}/{wnid}_{}.xml", 10 * i + 1), annotation(&wnid, i)));
            }
            train.push((wnid.clone(), part.iter().enumerate().map(image).collect()));
        }
        let number = |i: usize| 997 * i % VALIDATION_IMAGES + 1;
        let stem = |i: usize| format!("ILSVRC2012_val_{:08}", number(i));
        let val = images
            .iter()
            .enumerate()
            .map(|(i, bytes)| (format!("{}.JPEG", stem(i)), bytes.clone()))
            .collect();
        let val_boxes =
            (0..images.len()).map(|i| (format!("val/{}.xml", stem(i)), annotation("x", i))).collect();
        FakeImagenet { classes, truth, train, val, train_boxes, val_boxes, compressed: true }
    }

    /// Index of a class in WNID order.
    pub fn index(&self, wnid: &str) -> usize {
        self.classes.iter().filter(|class| class.1.as_str() < wnid).count()
    }

    /// Writes all archives.
    pub fn write(&self, dir: &Path) {
        let inner: Vec<(String, Vec<u8>)> =
            self.train.iter().map(|(wnid, images)| (format!("{wnid}.tar"), tar(images))).collect();
        let truth: String = self.truth.iter().map(|id| format!("{id}\n")).collect();
        let kit = vec![
            ("kit/data/meta.mat".to_owned(), self.meta_mat()),
            ("kit/data/ILSVRC2012_validation_ground_truth.txt".to_owned(), truth.into_bytes()),
        ];
        let xml = |all: &[(String, String)]| {
            let bytes: Vec<_> =
                all.iter().map(|(name, xml)| (name.clone(), xml.clone().into_bytes())).collect();
            gzip(&tar(&bytes))
        };
        let contents =
            [tar(&inner), tar(&self.val), gzip(&tar(&kit)), xml(&self.train_boxes), xml(&self.val_boxes)];
        std::fs::create_dir_all(dir).unwrap();
        for (name, bytes) in ARCHIVES.iter().zip(contents) {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }

    /// `meta.mat`: the structure array `synsets`, with the classes and one parent synset.
    pub fn meta_mat(&self) -> Vec<u8> {
        let mut values = Vec::new();
        let parent = (CLASSES as u32 + 1, "n00000001".to_owned(), "entity".to_owned());
        for (id, wnid, words) in self.classes.iter().chain([&parent]) {
            let children = f64::from(u8::from(*id > CLASSES as u32));
            values.extend(matrix(6, &[], [1, 1], &element(9, &f64::from(*id).to_le_bytes())));
            for text in [wnid, words] {
                let characters: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                values.extend(matrix(4, &[], [1, text.len()], &element(4, &characters)));
            }
            values.extend(matrix(6, &[], [1, 1], &element(9, &children.to_le_bytes())));
            values.extend(matrix(6, &[], [1, 1], &element(4, &1300_u16.to_le_bytes())));
        }
        const FIELD: usize = 20;
        let mut fields = vec![0; 5 * FIELD];
        for (i, name) in
            ["ILSVRC2012_ID", "WNID", "words", "num_children", "num_train_images"].iter().enumerate()
        {
            fields[i * FIELD..][..name.len()].copy_from_slice(name.as_bytes());
        }
        let contents = [element(5, &(FIELD as i32).to_le_bytes()), element(1, &fields), values].concat();
        let array = matrix(2, b"synsets", [self.classes.len() + 1, 1], &contents);
        let mut file = vec![b' '; 128];
        file[..10].copy_from_slice(b"MATLAB 5.0");
        file[124..].copy_from_slice(&[0, 1, b'I', b'M']);
        if self.compressed {
            let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
            zlib.write_all(&array).unwrap();
            let packed = zlib.finish().unwrap();
            file.extend(15_u32.to_le_bytes());
            file.extend((packed.len() as u32).to_le_bytes());
            file.extend(packed);
        } else {
            file.extend(array);
        }
        file
    }
}

/// The box of image `i`: left, top, right, bottom.
pub fn edges(i: usize) -> [usize; 4] {
    [1 + i % 5, 2 + i % 7, 20 + i % 11, 25 + i % 13]
}

fn annotation(name: &str, i: usize) -> String {
    let [xmin, ymin, xmax, ymax] = edges(i);
    format!(
        "<annotation><object><name>{name}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax>\
         <ymax>{ymax}</ymax></bndbox></object></annotation>"
    )
}

/// A tar file.
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_300_000_000);
        // Written directly, so that names are possible that the tar crate rejects.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Compresses with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A data element of a MATLAB file, padded.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if data.len() <= 4 {
        // Small data is stored within the tag.
        bytes.extend((kind | (data.len() as u32) << 16).to_le_bytes());
        bytes.extend(data);
    } else {
        bytes.extend(kind.to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn matrix(class: u32, name: &[u8], size: [usize; 2], contents: &[u8]) -> Vec<u8> {
    let flags = [class.to_le_bytes(), [0; 4]].concat();
    let dimensions = size.map(|side| (side as i32).to_le_bytes()).concat();
    element(14, &[element(6, &flags), element(5, &dimensions), element(1, name), contents.to_vec()].concat())
}
