//! Bounding boxes of objects, from annotations in PASCAL VOC XML.

use std::collections::HashMap;
use std::io::BufReader;
use std::path::Path;

use roxmltree::{Document, Node};
use vgg_files::open_regular;

use super::BoundingBox;
use super::archive::gzipped_members;
use crate::error::io_error;
use crate::{Error, Result};

/// Largest annotation of an image: a parsed document takes many times its size in memory.
pub(super) const MAX_XML_BYTES: u64 = 1 << 20;

/// Bounding boxes of images, by file stem.
pub(super) type Boxes = HashMap<String, Vec<BoundingBox>>;

/// Reads all annotations of a gzip-compressed tar file.
///
/// # Errors
/// [`Error::Source`] if the archive or an annotation cannot be read, or an image has two annotations.
pub(super) fn read_archive(path: &Path) -> Result<Boxes> {
    let refuse = |path: &Path, reason: String| Error::Source { path: path.to_owned(), reason };
    let file = open_regular(path).map_err(io_error("open", path))?;
    let mut boxes = Boxes::new();
    gzipped_members(BufReader::new(file), path, &mut |mut member| {
        let Some(stem) = member.file_name().strip_suffix(".xml").map(str::to_owned) else { return Ok(()) };
        let found =
            parse(&member.read_at_most(MAX_XML_BYTES)?).map_err(|reason| refuse(&member.path, reason))?;
        match boxes.insert(stem, found) {
            None => Ok(()),
            Some(_) => Err(refuse(&member.path, "it occurs twice".into())),
        }
    })?;
    if boxes.is_empty() {
        return Err(refuse(path, "it has no annotations".into()));
    }
    Ok(boxes)
}

/// Parses the bounding boxes of one annotation.
pub(super) fn parse(xml: &[u8]) -> std::result::Result<Vec<BoundingBox>, String> {
    let text = std::str::from_utf8(xml).map_err(|_| "it is not UTF-8")?;
    let document = Document::parse(text).map_err(|e| e.to_string())?;
    let child = |node: Node<'_, '_>, name: &str| -> std::result::Result<String, String> {
        let found = node.children().find(|c| c.has_tag_name(name)).and_then(|c| c.text());
        found.map(|text| text.trim().to_owned()).ok_or_else(|| format!("an object has no {name}"))
    };
    let mut boxes = Vec::new();
    for object in document.descendants().filter(|node| node.has_tag_name("object")) {
        let bounds = object.children().find(|c| c.has_tag_name("bndbox")).ok_or("an object has no bndbox")?;
        let side = |name: &str| {
            let text = child(bounds, name)?;
            text.parse::<f64>()
                .ok()
                .filter(|x| x.is_finite())
                .ok_or_else(|| format!("{name} is {text:?}, not a number"))
        };
        boxes.push(BoundingBox {
            name: child(object, "name")?,
            xmin: side("xmin")?,
            ymin: side("ymin")?,
            xmax: side("xmax")?,
            ymax: side("ymax")?,
        });
    }
    Ok(boxes)
}

/// Clips boxes to an `h` x `w` image, and removes boxes that are then empty or inverted. Returns a
/// description of the change, or `None` if there is none.
pub(super) fn mend(boxes: &mut Vec<BoundingBox>, h: usize, w: usize) -> Option<&'static str> {
    let (h, w) = (h as f64, w as f64);
    let before = boxes.clone();
    for b in boxes.iter_mut() {
        (b.xmin, b.xmax) = (b.xmin.clamp(0.0, w), b.xmax.clamp(0.0, w));
        (b.ymin, b.ymax) = (b.ymin.clamp(0.0, h), b.ymax.clamp(0.0, h));
    }
    boxes.retain(|b| b.xmin < b.xmax && b.ymin < b.ymax);
    match *boxes == before {
        true => None,
        false if boxes.len() < before.len() => {
            Some("a bounding box that is empty, inverted or outside the image was removed")
        }
        false => Some("a bounding box was clipped to the image"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_boxes_are_clipped_or_removed() {
        let b = |xmin, ymin, xmax, ymax| BoundingBox { name: "x".into(), xmin, ymin, xmax, ymax };
        let mut boxes = vec![b(1.0, 2.0, 30.0, 40.0)];
        assert_eq!(mend(&mut boxes, 50, 50), None);
        assert!(
            mend(&mut boxes, 30, 50).is_some_and(|what| what.contains("clipped")) && boxes[0].ymax == 30.0
        );
        let mut boxes = vec![b(30.0, 2.0, 1.0, 40.0), b(60.0, 60.0, 70.0, 70.0), b(1.0, 1.0, 2.0, 2.0)];
        assert!(mend(&mut boxes, 50, 50).is_some_and(|what| what.contains("removed")));
        assert_eq!(boxes, [b(1.0, 1.0, 2.0, 2.0)]);
    }

    #[test]
    fn annotation_is_parsed() {
        let xml =
            b"<annotation><size><width>500</width></size><object><name>n01440764</name><bndbox><xmin>9</xmin>
            <ymin>8</ymin><xmax>20.5</xmax><ymax>30</ymax></bndbox></object></annotation>";
        let boxes = parse(xml).unwrap();
        assert_eq!((boxes.len(), boxes[0].name.as_str(), boxes[0].xmax), (1, "n01440764", 20.5));
        assert!(
            parse(b"<annotation><object><name>a</name></object></annotation>")
                .unwrap_err()
                .contains("bndbox")
        );
        assert!(parse(b"<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>").is_err());
    }
}
