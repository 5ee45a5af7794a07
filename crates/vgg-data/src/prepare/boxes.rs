//! Boxes around objects, from annotations in the format of PASCAL VOC.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use roxmltree::{Document, Node};

use super::BoundingBox;
use super::archive::gzipped_members;
use crate::error::at;
use crate::{Error, Result};

/// Boxes of images by the names of their files, without what tells the format.
pub(super) type Boxes = HashMap<String, Vec<BoundingBox>>;

/// All annotations of an archive compressed by gzip.
///
/// # Errors
/// [`Error::Source`] with the annotation that cannot be read.
pub(super) fn read_archive(path: &Path) -> Result<Boxes> {
    let refuse = |path: &Path, reason: String| Error::Source { path: path.to_owned(), reason };
    let file = File::open(path).map_err(at("open", path))?;
    let mut boxes = Boxes::new();
    gzipped_members(BufReader::new(file), path, &mut |mut member| {
        let Some(stem) = member.file_name().strip_suffix(".xml").map(str::to_owned) else { return Ok(()) };
        let found = parse(&member.read()?).map_err(|reason| refuse(&member.path, reason))?;
        match boxes.insert(stem, found) {
            None => Ok(()),
            Some(_) => Err(refuse(&member.path, "it is there twice".into())),
        }
    })?;
    if boxes.is_empty() {
        return Err(refuse(path, "it holds no annotation".into()));
    }
    Ok(boxes)
}

/// The boxes of one annotation.
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
            text.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(|| format!("{name} is {text:?}"))
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

/// Leaves out boxes that are the wrong way round or outside of an `h` x `w` image, and brings those that reach beyond it
/// back to its edge. Says whether there were any.
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
            Some("a box that is empty, inverted or outside of the image was left out")
        }
        false => Some("a box that reached beyond the image was cut off at its edge"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_outside_and_inverted_do_not_stay() {
        let b = |xmin, ymin, xmax, ymax| BoundingBox { name: "x".into(), xmin, ymin, xmax, ymax };
        let mut boxes = vec![b(1.0, 2.0, 30.0, 40.0)];
        assert_eq!(mend(&mut boxes, 50, 50), None);
        assert!(
            mend(&mut boxes, 30, 50).is_some_and(|what| what.contains("cut off")) && boxes[0].ymax == 30.0
        );
        let mut boxes = vec![b(30.0, 2.0, 1.0, 40.0), b(60.0, 60.0, 70.0, 70.0), b(1.0, 1.0, 2.0, 2.0)];
        assert!(mend(&mut boxes, 50, 50).is_some_and(|what| what.contains("left out")));
        assert_eq!(boxes, [b(1.0, 1.0, 2.0, 2.0)]);
    }

    #[test]
    fn an_annotation_is_read() {
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
